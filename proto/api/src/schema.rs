//! The schema table: every field of every API type, in upstream's order.
//!
//! Built from `tables/` at compile time into statics; nothing is parsed or
//! allocated at run time. One walker each reads it: decode, canon, defaults,
//! patch, protobuf and OpenAPI. The table owns facts about fields and no behaviour.

/// What a field is on the wire.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    String,
    Bool,
    Int32,
    Int64,
    Float64,
    /// Base64 in JSON.
    Bytes,
    Quantity,
    Time,
    MicroTime,
    IntOrString,
    /// A list of strings that protobuf wraps in a message (`ExtraValue`, `Verbs`).
    Items,
    Raw(Raw),
    Struct(&'static Type),
    List(&'static Kind),
    Map(&'static Kind),
}

/// Values whose shape the table does not describe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raw {
    /// Any JSON; a message with `raw = 1` in protobuf.
    Json,
    /// `{schema = 1, jSONSchemas = 2}`
    SchemaOrArray,
    /// `{allows = 1, schema = 2}`
    SchemaOrBool,
    /// `{schema = 1, property = 2}`
    SchemaOrStringArray,
}

/// When a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    OmitEmpty,
    OmitZero,
    Always,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    None,
    Atomic,
    Set,
    Map,
}

#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    /// The Go struct that declares it (an embedded one, when flattened).
    pub owner: &'static str,
    /// The Go type as error messages print it.
    pub go: &'static str,
    pub kind: Kind,
    /// A Go pointer: its zero value is kept when present.
    pub pointer: bool,
    pub emit: Emit,
    /// Protobuf number; 0 for a field of an embedded message or outside protobuf.
    pub proto: u32,
    pub merge_key: &'static str,
    /// Strategic merge patch merges this list instead of replacing it.
    pub merge: bool,
    pub retain_keys: bool,
    /// Strategic merge patch replaces this struct instead of merging it.
    pub replace: bool,
    pub list_type: ListType,
    pub list_map_keys: &'static [&'static str],
    /// The map or struct is owned as a whole.
    pub atomic: bool,
    pub required: bool,
    /// The declarative default, as JSON.
    pub default: Option<&'static str>,
    pub markers: &'static [&'static str],
}

pub struct Type {
    /// `core/v1.Pod`.
    pub name: &'static str,
    /// `Pod`.
    pub go: &'static str,
    /// `core/v1`.
    pub package: &'static str,
    /// `io.k8s.api.core.v1.Pod`.
    pub definition: &'static str,
    pub atomic: bool,
    /// In the order in which they are written.
    pub fields: &'static [Field],
    /// Embedded messages: protobuf number and type.
    pub embeds: &'static [(u32, &'static Type)],
}

include!(concat!(env!("OUT_DIR"), "/tables.rs"));

const META_LONG: &str = "apimachinery/pkg/apis/meta/v1.";

/// The type of that name: `core/v1.Pod`, `apps/v1.Deployment`, `meta/v1.ObjectMeta`
/// (short for `apimachinery/pkg/apis/meta/v1.ObjectMeta`).
pub fn lookup(name: &str) -> Option<&'static Type> {
    let long;
    let name = match name.strip_prefix("meta/v1.") {
        Some(rest) => {
            long = format!("{META_LONG}{rest}");
            &long
        }
        None => name,
    };
    TYPES.binary_search_by(|t| t.name.cmp(name)).ok().map(|i| &TYPES[i])
}

/// Every type, sorted by name.
pub fn all() -> &'static [Type] {
    &TYPES
}

/// `ObjectMeta`.
pub fn object_meta() -> &'static Type {
    lookup("meta/v1.ObjectMeta").expect("the table has ObjectMeta")
}

impl Type {
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|f| f.name == name)
    }
    /// A top-level object: it has kind, apiVersion and ObjectMeta.
    pub fn is_object(&self) -> bool {
        let meta =
            |f: &Field| matches!(f.kind, Kind::Struct(t) if t.name == "apimachinery/pkg/apis/meta/v1.ObjectMeta");
        self.field("kind").is_some() && self.field("metadata").is_some_and(meta)
    }
}

impl std::fmt::Debug for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Types are recursive: the name is enough.
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_upstreams_order_and_flattens_embedded_structs() {
        let pod = lookup("core/v1.Pod").unwrap();
        let names: Vec<_> = pod.fields.iter().map(|f| f.name).collect();
        assert_eq!(names, ["kind", "apiVersion", "metadata", "spec", "status"]);
        let volume = lookup("core/v1.Volume").unwrap();
        assert_eq!((volume.fields[0].name, volume.embeds[0].0), ("name", 2));
        assert!(volume.field("hostPath").is_some_and(|f| f.proto == 0 && f.owner == "VolumeSource"));
        assert!(lookup("meta/v1.ObjectMeta").is_some() && lookup("core/v1.Nothing").is_none());
    }

    #[test]
    fn merge_facts_are_on_the_fields() {
        let spec = lookup("core/v1.PodSpec").unwrap();
        let volumes = spec.field("volumes").unwrap();
        assert!(volumes.merge && volumes.retain_keys && volumes.merge_key == "name");
        let ports = lookup("core/v1.Container").unwrap().field("ports").unwrap();
        assert_eq!(ports.list_map_keys, ["containerPort", "protocol"]);
        assert!(object_meta().field("finalizers").unwrap().merge);
        assert!(lookup("apps/v1.DeploymentSpec").unwrap().field("strategy").unwrap().retain_keys);
    }

    #[test]
    fn no_protobuf_number_is_used_twice() {
        for t in all() {
            let mut seen: Vec<u32> = t.fields.iter().map(|f| f.proto).filter(|n| *n != 0).collect();
            seen.extend(t.embeds.iter().map(|e| e.0));
            let n = seen.len();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(n, seen.len(), "{}", t.name);
        }
    }
}
