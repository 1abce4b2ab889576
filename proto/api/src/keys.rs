//! Which keys an object may have: a type has dozens of fields and an object a
//! few of them, so that walkers ask this before they search the map.

use serde_json::{Map, Value};

/// A set of names in one word; it may say yes for one that is not there, and
/// never no for one that is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Keys(u64);

fn bit(name: &str) -> u64 {
    let b = name.as_bytes();
    let at = |i: usize| u32::from(b.get(i).copied().unwrap_or_default());
    let mix = at(0).wrapping_mul(7) ^ at(b.len() / 2).wrapping_mul(13) ^ at(b.len().wrapping_sub(1)).wrapping_mul(29);
    1 << ((mix ^ b.len() as u32) % 64)
}

impl Keys {
    pub fn of(map: &Map<String, Value>) -> Keys {
        Keys(map.keys().fold(0, |all, k| all | bit(k)))
    }

    pub fn may_have(self, name: &str) -> bool {
        self.0 & bit(name) != 0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_that_is_there_is_never_denied_and_most_others_are() {
        for t in crate::schema::all() {
            for f in t.fields {
                let mut map = Map::new();
                map.insert(f.name.to_owned(), json!(1));
                assert!(Keys::of(&map).may_have(f.name));
            }
        }
        let pod = crate::schema::lookup("core/v1.PodSpec").unwrap();
        let spec = json!({"containers": [], "nodeName": "n", "restartPolicy": "Always"});
        let keys = Keys::of(spec.as_object().unwrap());
        let passed = pod.fields.iter().filter(|f| keys.may_have(f.name)).count();
        assert!(passed < pod.fields.len() / 3, "{passed} of {}", pod.fields.len());
        assert!(!Keys::default().may_have(""));
    }
}
