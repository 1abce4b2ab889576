//! The little of an image reference that defaulting needs: its tag.

/// The tag of a reference: `latest` when it names neither tag nor digest, empty
/// when it names only a digest or is not a valid reference.
pub fn tag(image: &str) -> &str {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rfind('/').map_or(0, |i| i + 1);
    let (repository, tag) = match name[last..].find(':') {
        Some(i) => (&name[..last + i], Some(&name[last + i + 1..])),
        None => (name, None),
    };
    if !valid_repository(repository) || !digest.is_none_or(valid_digest) || !tag.is_none_or(valid_tag) {
        return "";
    }
    match (tag, digest) {
        (Some(tag), _) => tag,
        (None, Some(_)) => "",
        (None, None) => "latest",
    }
}

fn valid_repository(repository: &str) -> bool {
    let path = match repository.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            let host = first.split(':').next().unwrap_or("");
            let host_ok = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-[]".contains(&b));
            if !host_ok {
                return false;
            }
            rest
        }
        _ => repository,
    };
    !path.is_empty() && path.len() <= 255 && path.split('/').all(valid_component)
}

/// Lower-case alphanumerics, separated inside by `.`, `_`, `__` or dashes.
fn valid_component(c: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let b = c.as_bytes();
    let (Some(first), Some(last)) = (b.first(), b.last()) else { return false };
    alnum(*first)
        && alnum(*last)
        && b.iter().all(|b| alnum(*b) || b"._-".contains(b))
        && !["..", "___", "._", "_.", ".-", "-.", "_-", "-_"].iter().any(|bad| c.contains(bad))
}

fn valid_tag(tag: &str) -> bool {
    let first_ok = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    first_ok && tag.len() <= 128 && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn valid_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bare_reference_means_latest() {
        let digest = format!("nginx@sha256:{}", "a".repeat(64));
        for (image, expected) in [
            ("nginx", "latest"),
            ("nginx:latest", "latest"),
            ("nginx:1.27", "1.27"),
            ("registry.example:5000/team/app", "latest"),
            ("registry.example:5000/team/app:v2", "v2"),
            (digest.as_str(), ""),
            ("Nginx", ""),
            ("", ""),
            ("a b", ""),
        ] {
            assert_eq!(tag(image), expected, "{image}");
        }
    }
}
