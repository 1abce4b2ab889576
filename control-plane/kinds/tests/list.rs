//! The visible list is complete and agrees with upstream's table of resources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use triarch_kinds::KINDS;
use triarch_registry::{Kind, Verb};

fn text(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "create",
        Verb::Delete => "delete",
        Verb::DeleteCollection => "deletecollection",
        Verb::Get => "get",
        Verb::List => "list",
        Verb::Patch => "patch",
        Verb::Update => "update",
        Verb::Watch => "watch",
    }
}

/// `group/version/resource[/subresource]` to (namespaced, verbs).
fn table() -> BTreeMap<String, (bool, BTreeSet<String>)> {
    let lines = include_str!("../tables/resources.tsv").lines().filter(|l| !l.starts_with('#'));
    let row = |line: &str| {
        let f: Vec<&str> = line.split('\t').collect();
        let group = if f[0] == "core" { "" } else { f[0] };
        (format!("{group}/{}/{}", f[1], f[2]), (f[3] == "true", f[4].split(',').map(str::to_owned).collect()))
    };
    lines.map(row).collect()
}

fn verbs(verbs: &[Verb]) -> BTreeSet<String> {
    verbs.iter().map(|v| text(*v).to_owned()).collect()
}

fn path(kind: &Kind) -> String {
    format!("{}/{}/{}", kind.group, kind.version, kind.plural)
}

#[test]
fn kinds_and_subresources_agree_with_the_table_of_resources() {
    let table = table();
    for kind in KINDS {
        let path = path(kind);
        let (namespaced, wanted) = table.get(&path).unwrap_or_else(|| panic!("{path} is not in the table"));
        assert_eq!(kind.namespaced(), *namespaced, "{path}");
        assert_eq!(&verbs(kind.verbs), wanted, "{path}");
        let have: BTreeSet<String> = kind.subresources.iter().map(|s| format!("{path}/{}", s.name)).collect();
        let want: BTreeSet<String> = table.keys().filter(|k| k.starts_with(&format!("{path}/"))).cloned().collect();
        assert_eq!(have, want);
        for sub in kind.subresources {
            assert_eq!(verbs(sub.verbs), table[&format!("{path}/{}", sub.name)].1, "{path}/{}", sub.name);
        }
    }
}

#[test]
fn names_and_schemas_are_consistent() {
    let mut seen = BTreeSet::new();
    for kind in KINDS {
        assert!(seen.insert(path(kind)), "{} stands twice in the list", path(kind));
        assert_eq!(kind.list_kind, format!("{}List", kind.kind));
        assert_eq!(kind.singular, kind.kind.to_lowercase());
        assert!(triarch_api::schema::lookup(kind.schema).is_some(), "no schema {}", kind.schema);
        let stored_as = KINDS.iter().filter(|k| k.resource == kind.resource && k.stored && k.from_storage.is_none());
        assert!(!kind.stored || stored_as.count() == 1, "{} has one storage version", kind.resource);
        if let Some(first) = kind.columns.first() {
            assert!(first.name == "Name" || kind.kind == "Event", "{}", kind.kind);
        }
    }
}

#[test]
fn two_kinds_over_one_store_declare_as_many_selectable_fields() {
    for kind in KINDS {
        for other in KINDS.iter().filter(|k| k.resource == kind.resource) {
            assert_eq!(kind.selectable.len(), other.selectable.len(), "{kind:?} {other:?}");
        }
    }
}

/// Every `static …: Kind` of the sources is in the list.
#[test]
fn every_kind_in_the_sources_is_in_the_list() {
    fn count(dir: &Path) -> usize {
        let mut found = 0;
        for entry in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
            if entry.is_dir() {
                found += count(&entry);
            } else {
                let text = std::fs::read_to_string(&entry).unwrap();
                found += text.lines().filter(|l| l.starts_with("pub static ") && l.contains(": Kind = ")).count();
            }
        }
        found
    }
    assert_eq!(count(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")), KINDS.len());
}
