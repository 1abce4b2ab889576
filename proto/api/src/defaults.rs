//! The declarative defaults of the table. Most defaults cross fields and are the
//! kinds' own business; this fills in only what a field's marker says.

use serde_json::{Map, Value};

use crate::keys::Keys;
use crate::schema::{Emit, Kind, Type};

/// Fills in absent fields of a value and of what it holds.
pub fn apply(ty: &Type, v: &mut Value) {
    if let Value::Object(map) = v {
        structure(ty, map, 0);
    }
}

fn structure(ty: &Type, map: &mut Map<String, Value>, depth: usize) {
    if depth > crate::canon::MAX_DEPTH {
        return;
    }
    let keys = Keys::of(map);
    for f in ty.fields {
        if !keys.may_have(f.name) && f.default.is_none() && !matches!(f.kind, Kind::Struct(_)) {
            continue;
        }
        let absent = map.get(f.name).is_none_or(|v| v.is_null() || (!f.pointer && v.as_str() == Some("")));
        match (absent, f.default, &f.kind) {
            (true, Some(default), _) => {
                let default = serde_json::from_str(default).expect("the table's defaults are JSON: see the test");
                map.insert(f.name.to_string(), default);
            }
            // A Go struct is there even when nobody wrote it.
            (true, None, Kind::Struct(inner)) if !f.pointer && f.emit == Emit::Always => {
                let mut fresh = Map::new();
                structure(inner, &mut fresh, depth + 1);
                if !fresh.is_empty() {
                    map.insert(f.name.to_string(), Value::Object(fresh));
                }
            }
            (false, _, kind) => {
                if let Some(v) = map.get_mut(f.name) {
                    walk(kind, v, depth + 1);
                }
            }
            _ => {}
        }
    }
}

fn walk(kind: &Kind, v: &mut Value, depth: usize) {
    match (kind, v) {
        (Kind::Struct(ty), Value::Object(map)) => structure(ty, map, depth),
        (Kind::List(elem), Value::Array(items)) => items.iter_mut().for_each(|i| walk(elem, i, depth + 1)),
        (Kind::Map(elem), Value::Object(map)) => map.values_mut().for_each(|i| walk(elem, i, depth + 1)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_and_replicas_get_their_defaults_wherever_they_are() {
        let ty = crate::schema::lookup("apps/v1.Deployment").unwrap();
        let mut v = json!({"spec": {"template": {"spec": {"containers": [{"ports": [{"containerPort": 1}, {"containerPort": 2, "protocol": "UDP"}]}]}}}});
        apply(ty, &mut v);
        let ports = &v["spec"]["template"]["spec"]["containers"][0]["ports"];
        assert_eq!((&ports[0]["protocol"], &ports[1]["protocol"]), (&json!("TCP"), &json!("UDP")));
        let mut rc = json!({"spec": {}});
        apply(crate::schema::lookup("core/v1.ReplicationController").unwrap(), &mut rc);
        assert_eq!(rc["spec"]["replicas"], 1);
    }

    #[test]
    fn every_default_of_the_table_is_json() {
        for f in crate::schema::all().iter().flat_map(|t| t.fields) {
            assert!(f.default.is_none_or(|d| serde_json::from_str::<Value>(d).is_ok()), "{} {:?}", f.name, f.default);
        }
    }
}
