//! Turns `tables/fields.tsv` and `tables/schema-facts.tsv` into Rust statics.
//!
//! Embedded (inline) Go structs are flattened into the fields of the outer type,
//! in place, because that is how JSON has them; protobuf keeps them as messages
//! of their own, so the outer type also lists them as `embeds`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

#[derive(Clone)]
struct Row {
    name: String,
    go: String,
    kind: String,
    emit: String,
    proto: u32,
    merge_key: String,
    markers: Vec<String>,
}

#[derive(Default)]
struct Fact {
    list_type: String,
    keys: Vec<String>,
    strategy: String,
    map_type: String,
}

struct Tables {
    types: BTreeMap<String, (Vec<String>, Vec<Row>)>,
    facts: BTreeMap<(String, String), Fact>,
    ids: BTreeMap<String, usize>,
}

const META: &str = "apimachinery/pkg/apis/meta/v1";

fn main() {
    println!("cargo::rerun-if-changed=tables/fields.tsv");
    println!("cargo::rerun-if-changed=tables/schema-facts.tsv");
    let tables = read();
    let out = Path::new(&std::env::var("OUT_DIR").expect("cargo sets OUT_DIR")).join("tables.rs");
    std::fs::write(out, tables.generate()).expect("OUT_DIR is writable");
}

fn read() -> Tables {
    let text = std::fs::read_to_string("tables/fields.tsv").expect("tables/fields.tsv is in the crate");
    let mut types: BTreeMap<String, (Vec<String>, Vec<Row>)> = BTreeMap::new();
    for line in text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
        let c: Vec<&str> = line.split('\t').collect();
        assert_eq!(c.len(), 8, "eight columns: {line}");
        let markers: Vec<String> =
            c[7].split("; ").map(str::trim).filter(|m| !m.is_empty()).map(String::from).collect();
        let entry = types.entry(c[0].to_string()).or_default();
        if c[1] == "(type)" {
            entry.0 = markers;
            continue;
        }
        entry.1.push(Row {
            name: c[1].into(),
            go: c[2].into(),
            kind: c[3].into(),
            emit: c[4].into(),
            proto: c[5].parse().unwrap_or(0),
            merge_key: c[6].into(),
            markers,
        });
    }
    // Structs without fields have no row of their own.
    let mut empty = Vec::new();
    for (name, (_, rows)) in &types {
        for r in rows.iter().filter(|r| r.kind == "struct") {
            let target = resolve(package(name), &r.go);
            if !types.contains_key(&target) {
                empty.push(target);
            }
        }
    }
    for name in empty {
        types.entry(name).or_default();
    }
    let mut facts = BTreeMap::new();
    let text = std::fs::read_to_string("tables/schema-facts.tsv").expect("tables/schema-facts.tsv is in the crate");
    for line in text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()) {
        let c: Vec<&str> = line.split('\t').chain(std::iter::repeat("")).take(7).collect();
        let fact = Fact {
            list_type: c[2].into(),
            keys: c[3].split([',', ' ']).filter(|k| !k.is_empty()).map(String::from).collect(),
            strategy: c[5].into(),
            map_type: c[6].into(),
        };
        facts.insert((c[0].to_string(), c[1].to_string()), fact);
    }
    let ids = types.keys().enumerate().map(|(i, k)| (k.clone(), i)).collect();
    Tables { types, facts, ids }
}

fn package(ty: &str) -> &str {
    ty.rsplit_once('.').expect("package.Type").0
}

/// A Go type name, as written in `package`, to a type of the table.
fn resolve(package: &str, go: &str) -> String {
    let go = go.trim_start_matches('*');
    match go.split_once('.') {
        None => format!("{package}.{go}"),
        Some((alias, name)) => {
            let p = match alias {
                "metav1" => META,
                "v1" | "corev1" => "core/v1",
                "runtime" => "apimachinery/pkg/runtime",
                "authenticationv1" => "authentication/v1",
                "schedulingv1alpha3" => "scheduling/v1alpha3",
                other => panic!("unknown import {other} in {package}"),
            };
            format!("{p}.{name}")
        }
    }
}

/// `core/v1.Pod` to `io.k8s.api.core.v1.Pod`.
fn definition(ty: &str) -> String {
    let (package, name) = ty.rsplit_once('.').expect("package.Type");
    let dotted = package.replace('/', ".");
    let known = ["apimachinery.", "apiextensions-apiserver.", "kube-aggregator."];
    match known.iter().any(|k| dotted.starts_with(k)) {
        true => format!("io.k8s.{dotted}.{name}"),
        false => format!("io.k8s.api.{dotted}.{name}"),
    }
}

/// A Go type as reflection prints it: package by its last element.
fn go_name(package: &str, go: &str) -> String {
    let go = go.trim_start_matches('*');
    if let Some(elem) = go.strip_prefix("[]") {
        let star = if elem.starts_with('*') { "*" } else { "" };
        return match elem {
            "byte" => "[]uint8".into(),
            _ => format!("[]{star}{}", go_name(package, elem)),
        };
    }
    if let Some((key, value)) = go.strip_prefix("map[").and_then(|r| r.split_once(']')) {
        return format!("map[{}]{}", go_name(package, key), go_name(package, value));
    }
    if ["string", "bool", "int32", "int64", "float64", "interface{}", "byte"].contains(&go) {
        return go.into();
    }
    match go.split_once('.') {
        Some(("metav1" | "corev1", name)) => format!("v1.{name}"),
        Some(_) => go.into(),
        None => format!("{}.{go}", package.rsplit('/').next().expect("split gives at least one")),
    }
}

impl Tables {
    fn generate(&self) -> String {
        let mut out = String::new();
        let n = self.types.len();
        writeln!(out, "pub(super) static TYPES: [Type; {n}] = [").expect("String");
        for (name, (markers, rows)) in &self.types {
            let mut fields = String::new();
            let mut embeds = String::new();
            let mut count = 0;
            self.fields(name, name, rows, true, &mut fields, &mut embeds, &mut count);
            let atomic = markers.iter().any(|m| m == "structType=atomic");
            let (package, short) = name.rsplit_once('.').expect("package.Type");
            writeln!(
                out,
                "Type {{ name: {name:?}, go: {short:?}, package: {package:?}, definition: {:?}, atomic: {atomic}, fields: &[{fields}], embeds: &[{embeds}] }},",
                definition(name)
            )
            .expect("String");
        }
        out.push_str("];\n");
        out
    }

    fn fields(
        &self,
        outer: &str,
        name: &str,
        rows: &[Row],
        own: bool,
        out: &mut String,
        embeds: &mut String,
        count: &mut usize,
    ) {
        for row in rows {
            if row.name == "(inline)" {
                let target = resolve(package(name), &row.go);
                let (_, inner) = &self.types[&target];
                if own && row.proto != 0 {
                    write!(embeds, "({}, &TYPES[{}]),", row.proto, self.ids[&target]).expect("String");
                }
                // Without a number of its own the embedded struct is not in protobuf at all.
                self.fields(outer, &target, inner, false, out, embeds, count);
                continue;
            }
            *count += 1;
            self.field(outer, name, row, own, out);
        }
    }

    fn field(&self, outer: &str, owner: &str, row: &Row, own: bool, out: &mut String) {
        let fact = |ty: &str| self.facts.get(&(definition(ty), row.name.clone()));
        let fact = fact(outer).or_else(|| fact(owner));
        let marker = |key: &str| {
            let find = |m: &String| m.strip_prefix(key).and_then(|r| r.strip_prefix('=')).map(String::from);
            row.markers.iter().find_map(find)
        };
        let list_type = marker("listType").or_else(|| fact.map(|f| f.list_type.clone())).unwrap_or_default();
        let list_type = match list_type.as_str() {
            "map" => "Map",
            "set" => "Set",
            "atomic" => "Atomic",
            _ => "None",
        };
        let mut keys: Vec<String> =
            row.markers.iter().filter_map(|m| m.strip_prefix("listMapKey=")).map(String::from).collect();
        if keys.is_empty() {
            keys = fact.map(|f| f.keys.clone()).unwrap_or_default();
        }
        let strategy = fact.map(|f| f.strategy.clone()).unwrap_or_default();
        let merge = strategy.split(',').any(|s| s == "merge") || !row.merge_key.is_empty();
        let retain = strategy.split(',').any(|s| s == "retainKeys");
        let replace = strategy.split(',').any(|s| s == "replace");
        let map_atomic = marker("mapType").as_deref() == Some("atomic")
            || marker("structType").as_deref() == Some("atomic")
            || fact.is_some_and(|f| f.map_type == "atomic");
        let default = marker("default").map(|d| match d.strip_prefix("ref(").and_then(|r| r.strip_suffix(')')) {
            Some("AzureDataDiskCachingReadWrite") => "\"ReadWrite\"".to_string(),
            Some("AzureSharedBlobDisk") => "\"Shared\"".to_string(),
            Some(other) => panic!("unknown constant {other}"),
            None => d,
        });
        let emit = match row.emit.as_str() {
            "omitempty" => "OmitEmpty",
            "omitzero" => "OmitZero",
            "always" => "Always",
            other => panic!("unknown emit rule {other}"),
        };
        let required = row.markers.iter().any(|m| m == "required" || m == "k8s:required")
            || (!row.markers.iter().any(|m| m == "optional" || m == "k8s:optional") && row.emit == "always");
        write!(
            out,
            "Field {{ name: {:?}, owner: {:?}, go: {:?}, kind: {}, pointer: {}, emit: Emit::{emit}, proto: {}, merge_key: {:?}, merge: {merge}, retain_keys: {retain}, replace: {replace}, list_type: ListType::{list_type}, list_map_keys: &{keys:?}, atomic: {map_atomic}, required: {required}, default: {default:?}, markers: &{:?} }},",
            row.name,
            owner.rsplit_once('.').expect("package.Type").1,
            go_name(package(owner), &row.go),
            self.kind(package(owner), row),
            row.go.starts_with('*'),
            if own { row.proto } else { 0 },
            row.merge_key,
            row.markers,
        )
        .expect("String");
    }

    fn kind(&self, package: &str, row: &Row) -> String {
        let go = row.go.trim_start_matches('*');
        match row.kind.as_str() {
            "struct" => format!("Kind::Struct(&TYPES[{}])", self.ids[&resolve(package, go)]),
            "list" => match go {
                "Verbs" => "Kind::Items".into(),
                "ValidationRules" => format!("Kind::List(&{})", self.elem(package, "ValidationRule")),
                _ => format!("Kind::List(&{})", self.elem(package, go.strip_prefix("[]").expect("a slice"))),
            },
            "map" => {
                let value = match go {
                    "ResourceList" | "corev1.ResourceList" => "resource.Quantity",
                    "JSONSchemaDefinitions" => "JSONSchemaProps",
                    "JSONSchemaDependencies" => "JSONSchemaPropsOrStringArray",
                    _ => go.split_once(']').expect("map[key]value").1,
                };
                format!("Kind::Map(&{})", self.elem(package, value))
            }
            "raw" => self.elem(package, go),
            "string" => "Kind::String".into(),
            "bool" => "Kind::Bool".into(),
            "int32" => "Kind::Int32".into(),
            "int64" => "Kind::Int64".into(),
            "float64" => "Kind::Float64".into(),
            "bytes" => "Kind::Bytes".into(),
            "quantity" => "Kind::Quantity".into(),
            "time" => "Kind::Time".into(),
            "microtime" => "Kind::MicroTime".into(),
            "int-or-string" => "Kind::IntOrString".into(),
            other => panic!("unknown kind {other}"),
        }
    }

    /// A type that stands as an element, a map value or a raw field.
    fn elem(&self, package: &str, go: &str) -> String {
        match go {
            "string" => return "Kind::String".into(),
            "bool" => return "Kind::Bool".into(),
            "int32" => return "Kind::Int32".into(),
            "int64" => return "Kind::Int64".into(),
            "[]byte" => return "Kind::Bytes".into(),
            "ExtraValue" | "[]string" | "AttestationValue" => return "Kind::Items".into(),
            "resource.Quantity" => return "Kind::Quantity".into(),
            "metav1.Time" => return "Kind::Time".into(),
            "runtime.RawExtension" | "FieldsV1" | "JSON" | "interface{}" => return "Kind::Raw(Raw::Json)".into(),
            "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray" => {
                let shape = go.strip_prefix("JSONSchemaProps").expect("matched above");
                return format!("Kind::Raw(Raw::Schema{shape})");
            }
            _ => {}
        }
        if let Some(package) = (go == "types.UID").then_some(()) {
            let () = package;
            return "Kind::String".into();
        }
        match self.ids.get(&resolve(package, go)) {
            Some(id) => format!("Kind::Struct(&TYPES[{id}])"),
            // A named string.
            None => "Kind::String".into(),
        }
    }
}
