//! What a path asks for: upstream's URL grammar, no lookups.

use http::Method;

/// A parsed request line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    pub is_resource: bool,
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`,
    /// `deletecollection`; for other paths the method in lower case.
    pub verb: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource (`proxy/a/b` → `a/b`), as sent.
    pub rest: String,
}

/// Paths longer than this are refused by the caller before parsing.
pub const MAX_PATH: usize = 8 * 1024;

impl RequestInfo {
    /// `query` tells watches from lists.
    pub fn parse(method: &Method, path: &str, query: &[(String, String)]) -> RequestInfo {
        let mut info =
            RequestInfo { path: path.to_owned(), verb: method.as_str().to_lowercase(), ..RequestInfo::default() };
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let rest = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = (*version).to_owned();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = (*group).to_owned();
                info.version = (*version).to_owned();
                rest
            }
            _ => return info,
        };
        info.is_resource = true;
        info.verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        }
        .to_owned();
        let rest = match rest {
            // The namespace itself, or its own subresources.
            ["namespaces", ns] => {
                info.namespace = decode(ns);
                rest
            }
            ["namespaces", ns, "status" | "finalize"] => {
                info.namespace = decode(ns);
                rest
            }
            ["namespaces", ns, inside @ ..] if !inside.is_empty() => {
                info.namespace = decode(ns);
                inside
            }
            _ => rest,
        };
        info.resource = rest.first().map(|r| decode(r)).unwrap_or_default();
        info.name = rest.get(1).map(|n| decode(n)).unwrap_or_default();
        info.subresource = rest.get(2).map(|s| decode(s)).unwrap_or_default();
        if rest.len() > 3 {
            // As sent: a proxied path keeps its escapes and its final slash.
            let skip: usize = path.find(&format!("/{}/", rest[2])).map_or(path.len(), |i| i + rest[2].len() + 2);
            info.rest = path.get(skip..).unwrap_or_default().to_owned();
        }
        if info.name.is_empty() {
            match info.verb.as_str() {
                "get" => info.verb = if watches(query) { "watch" } else { "list" }.to_owned(),
                "delete" => info.verb = "deletecollection".to_owned(),
                _ => {}
            }
        } else if info.verb == "get" && info.subresource.is_empty() && watches(query) {
            info.verb = "watch".to_owned();
        }
        // A selector on one name is a request for that name, as authorization sees it.
        if matches!(info.verb.as_str(), "list" | "watch" | "deletecollection") && info.name.is_empty() {
            let selector = query.iter().find(|(k, _)| k == "fieldSelector").map_or("", |(_, v)| v);
            info.name = selector
                .split(',')
                .find_map(|r| r.strip_prefix("metadata.name="))
                .map(|n| n.trim_start_matches('=').to_owned())
                .unwrap_or_default();
        }
        info
    }

    /// Requests without an end of their own: not counted against the limits.
    pub fn long_running(&self) -> bool {
        self.verb == "watch" || matches!(self.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy" | "log")
    }

    pub fn mutating(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch" | "head" | "options")
    }
}

fn watches(query: &[(String, String)]) -> bool {
    query.iter().any(|(k, v)| k == "watch" && matches!(v.as_str(), "" | "1" | "true" | "True" | "TRUE" | "t"))
}

/// Percent-decodes one path segment.
fn decode(segment: &str) -> String {
    if !segment.contains('%') {
        return segment.to_owned();
    }
    let bytes = segment.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = bytes
            .get(i + 1..i + 3)
            .and_then(|h| std::str::from_utf8(h).ok())
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match (bytes[i], hex) {
            (b'%', Some(b)) => {
                out.push(b);
                i += 3;
            }
            (b, _) => {
                out.push(b);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: Method, path: &str, query: &[(&str, &str)]) -> RequestInfo {
        let query: Vec<_> = query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        RequestInfo::parse(&method, path, &query)
    }

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        for (method, path, query, want) in [
            (Method::GET, "/api/v1/pods", &[][..], "list||v1||pods||"),
            (Method::GET, "/api/v1/pods", &[("watch", "true")][..], "watch||v1||pods||"),
            (Method::GET, "/api/v1/namespaces/a/pods/b/log", &[][..], "get||v1|a|pods|b|log"),
            (Method::GET, "/api/v1/namespaces", &[][..], "list||v1||namespaces||"),
            (Method::GET, "/api/v1/namespaces/a", &[][..], "get||v1|a|namespaces|a|"),
            (Method::PUT, "/api/v1/namespaces/a/finalize", &[][..], "update||v1|a|namespaces|a|finalize"),
            (
                Method::DELETE,
                "/apis/apps/v1/namespaces/a/deployments",
                &[][..],
                "deletecollection|apps|v1|a|deployments||",
            ),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                &[][..],
                "patch|apps|v1|a|deployments|d|scale",
            ),
            (Method::GET, "/api/v1/nodes", &[("fieldSelector", "metadata.name=n1")][..], "list||v1||nodes|n1|"),
            (Method::POST, "/api/v1/namespaces/a/pods/b/exec", &[][..], "create||v1|a|pods|b|exec"),
        ] {
            let i = parse(method, path, query);
            let got = [i.verb, i.group, i.version, i.namespace, i.resource, i.name, i.subresource].join("|");
            assert_eq!(got, want, "{path}");
        }
        let proxy = parse(Method::GET, "/api/v1/namespaces/a/services/https:b:web/proxy/x%2Fy/", &[]);
        assert_eq!((proxy.name.as_str(), proxy.rest.as_str()), ("https:b:web", "x%2Fy/"));
        let other = parse(Method::GET, "/openapi/v3/apis/apps/v1", &[]);
        assert!(!other.is_resource && other.verb == "get");
        assert!(!parse(Method::GET, "/apis/apps/v1", &[]).is_resource);
    }
}
