//! The kinds that a registry serves, with the ways in which requests find them.

use std::collections::BTreeMap;

use crate::Kind;

/// An immutable list of kinds, indexed by path and by name.
#[derive(Clone, Debug)]
pub struct KindTable {
    kinds: Vec<&'static Kind>,
    by_path: BTreeMap<(&'static str, &'static str, &'static str), &'static Kind>,
    by_name: BTreeMap<(&'static str, &'static str, &'static str), &'static Kind>,
    groups: Vec<(&'static str, Vec<&'static str>)>,
}

impl KindTable {
    /// Keeps the order of `kinds`: discovery lists groups and versions in the
    /// order of their first kind, the core group apart.
    pub fn new(kinds: &[&'static Kind]) -> KindTable {
        let mut table =
            KindTable { kinds: kinds.to_vec(), by_path: BTreeMap::new(), by_name: BTreeMap::new(), groups: Vec::new() };
        for kind in kinds {
            table.by_path.insert((kind.group, kind.version, kind.plural), kind);
            table.by_name.insert((kind.group, kind.version, kind.kind), kind);
            match table.groups.iter_mut().find(|(g, _)| *g == kind.group) {
                Some((_, versions)) if versions.contains(&kind.version) => {}
                Some((_, versions)) => versions.push(kind.version),
                None => table.groups.push((kind.group, vec![kind.version])),
            }
        }
        table
    }

    pub fn iter(&self) -> impl Iterator<Item = &'static Kind> + '_ {
        self.kinds.iter().copied()
    }

    /// By URL: group, version and plural.
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
        self.by_path.get(&(group, version, plural)).copied()
    }

    /// By `apiVersion` (`v1`, `apps/v1`) and `kind`.
    pub fn by_type(&self, api_version: &str, kind: &str) -> Option<&'static Kind> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.by_name.get(&(group, version, kind)).copied()
    }

    /// By store (`pods`, `deployments.apps`): the storage version's kind.
    pub fn by_resource(&self, resource: &str) -> Option<&'static Kind> {
        self.iter().find(|k| k.resource == resource && k.stored && k.from_storage.is_none())
    }

    /// Groups with their versions, in order; the core group's name is empty.
    pub fn groups(&self) -> &[(&'static str, Vec<&'static str>)] {
        &self.groups
    }

    pub fn in_group_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'static Kind> + 'a {
        self.iter().filter(move |k| k.group == group && k.version == version)
    }
}
