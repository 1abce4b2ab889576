//! etcd's keys as the store's, and back.

use bytes::Bytes;

use crate::{FACADE_RESOURCE, Key};

/// The store's key for an etcd key: order-preserving and free of NULs. ASCII
/// above `\x01` is unchanged.
pub fn facade_key(key: &[u8]) -> Key {
    if key.iter().all(|b| matches!(b, 2..=0x7f)) {
        return Key::new(FACADE_RESOURCE, "", std::str::from_utf8(key).expect("all of it is ASCII"));
    }
    let mut text = String::with_capacity(key.len() * 2);
    for b in key {
        match b {
            0 => text.push_str("\u{1}\u{1}"),
            1 => text.push_str("\u{1}\u{2}"),
            b => text.push(char::from(*b)),
        }
    }
    Key::new(FACADE_RESOURCE, "", &text)
}

/// The inverse of [`facade_key`].
pub fn facade_key_bytes(key: &Key) -> Bytes {
    let all = key.as_bytes();
    let name = all.slice(FACADE_RESOURCE.len() + 2..);
    if name.iter().all(|b| matches!(b, 2..=0x7f)) {
        return name;
    }
    let mut out = Vec::with_capacity(name.len());
    let mut chars = key.name().chars();
    while let Some(c) = chars.next() {
        let c = if c == '\u{1}' { chars.next().map_or(0, |c| c as u32 - 1) } else { c as u32 };
        out.push(c as u8);
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_etcds_order_and_come_back_as_they_were() {
        let mut raw: Vec<Vec<u8>> = vec![b"".to_vec(), b"a".to_vec(), b"/registry/x".to_vec()];
        for a in 0..=255u8 {
            raw.extend([vec![a], vec![a, 0], vec![a, 1], vec![a, a], vec![b'a', a]]);
        }
        raw.sort();
        raw.dedup();
        let keys: Vec<Key> = raw.iter().map(|k| facade_key(k)).collect();
        assert!(keys.is_sorted() && keys.windows(2).all(|w| w[0] != w[1]));
        for (raw, key) in raw.iter().zip(&keys) {
            assert_eq!(facade_key_bytes(key), raw);
            assert!(Key::from_bytes(key.as_bytes().clone()).is_some());
        }
    }
}
