//! Golden tables: what `kubectl get` shows of each kind.
//!
//! `golden-tables/<resource>.json` has `now`, `objects`, the `columns` as a
//! Table defines them and a row for each object, with its conditions.

use std::path::Path;

use serde_json::{Value, json};
use triarch_env::Wall;
use triarch_kinds::KINDS;

#[test]
fn every_stored_kind_has_upstreams_columns_and_rows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden-tables");
    let mut problems = Vec::new();
    for kind in KINDS.iter().filter(|k| k.stored) {
        let path = root.join(format!("{}.json", kind.group_resource()));
        let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let case: Value = serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let now: jiff::Timestamp = case["now"].as_str().unwrap().parse().unwrap();
        let now = Wall::from_secs(now.as_second());
        let name = kind.group_resource();
        let mut check = |what: String, have: Value, want: &Value| {
            if have != *want {
                problems.push(format!("{name} {what}\n    have {have}\n    want {want}"));
            }
        };
        let columns = case["columns"].as_array().unwrap();
        check("columns".into(), kind.columns.len().into(), &columns.len().into());
        for (c, want) in kind.columns.iter().zip(columns) {
            let have = json!({
                "name": c.name, "type": c.kind, "format": c.format, "priority": c.priority, "description": c.description,
            });
            check(format!("column {}", c.name), have, want);
        }
        let (objects, rows) = (case["objects"].as_array().unwrap(), case["rows"].as_array().unwrap());
        assert_eq!(objects.len(), rows.len(), "{path:?}");
        for (object, row) in objects.iter().zip(rows) {
            let cells: Vec<Value> = kind.columns.iter().map(|c| (c.cell)(object, now)).collect();
            let at = object["metadata"]["name"].as_str().unwrap();
            check(format!("row {at}"), cells.into(), &row["cells"]);
            check(format!("conditions of {at}"), (kind.row_conditions)(object), &row["conditions"]);
        }
    }
    assert!(problems.is_empty(), "{} problems\n{}", problems.len(), problems.join("\n"));
}
