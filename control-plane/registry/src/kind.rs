//! What a kind is: one static value that names it, describes its columns and
//! selectable fields, and holds the few functions that cross fields.
//!
//! A kind is one file in `triarch-kinds` and one line in its list. The verb
//! handlers know kinds only through this type; there is no handler per kind.

use serde_json::Value;
use triarch_api::status::ErrorList;
use triarch_api::status::Status;
use triarch_env::{Env, Wall};
use triarch_mvcc::{Mvcc, Txn};

/// Whether objects live in namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// Verbs as discovery lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

/// All of them: what an ordinary stored kind serves.
pub const ALL_VERBS: &[Verb] = &[
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];

/// When `metadata.generation` rises on update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationRule {
    /// The kind has none.
    None,
    /// A change of `spec`.
    Spec,
    /// A change of anything but metadata and status.
    AllButMetadata,
}

/// What a delete answers and whether it is immediate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteRule {
    /// Gone at once; answers with a Status.
    Status,
    /// Gone at once; answers with the deleted object.
    Object,
    /// Graceful (pods): sets deletionTimestamp and a grace period unless that is 0.
    Graceful,
    /// Namespaces: deletionTimestamp and phase Terminating until the finalizer list is empty.
    Finalized,
}

/// A column of the Table representation (`kubectl get`).
#[derive(Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `boolean`, `date`, …
    pub kind: &'static str,
    /// `name` for the first column, else empty.
    pub format: &'static str,
    /// 0: always shown; 1: with `-o wide`.
    pub priority: i32,
    pub description: &'static str,
    /// The cell for one object; ages are computed from `now`.
    pub cell: fn(&Value, Wall) -> Value,
}

/// A field that field selectors may name, beyond metadata.name and metadata.namespace.
#[derive(Clone, Copy)]
pub struct SelectableField {
    pub path: &'static str,
    pub get: fn(&Value) -> String,
}

/// A subresource and how it is served.
#[derive(Clone, Copy)]
pub struct Subresource {
    /// `status`, `scale`, `binding`, `log`, `exec`, …
    pub name: &'static str,
    pub verbs: &'static [Verb],
    pub handler: SubresourceHandler,
    /// `(group, version, kind)` that discovery shows and bodies have.
    pub response: (&'static str, &'static str, &'static str),
    /// Schema type of the body, e.g. `autoscaling/v1.Scale`.
    pub schema: &'static str,
}

/// The mechanisms behind subresources.
#[derive(Clone, Copy)]
pub enum SubresourceHandler {
    /// Same object; `status` (and what [`StatusRule`] says) may change, spec may not.
    Status,
    /// autoscaling/v1 Scale over the object: replicas path, selector.
    Scale { spec_replicas: &'static str, status_replicas: &'static str, selector: fn(&Value) -> String },
    /// Another update view of the same object (`finalize`, `approval`, `ephemeralcontainers`):
    /// the function takes what this view may change from `new` into a copy of `old`.
    View { merge: fn(new: &Value, old: &Value) -> Value },
    /// Creates something about the object (binding, eviction, token). The
    /// function turns the posted body into the object's new state or an answer.
    Action(fn(&ActionContext<'_>, body: Value) -> Result<ActionOutcome, Status>),
    /// A byte stream or proxied request (log, exec, attach, portforward, proxy):
    /// handled by the server's connector.
    Connect,
}

/// What an [`SubresourceHandler::Action`] sees.
pub struct ActionContext<'a> {
    pub rules: &'a RuleContext<'a>,
    /// The parent object as stored (with kind and apiVersion).
    pub object: &'a Value,
    pub name: &'a str,
    pub namespace: &'a str,
}

/// What an action decides.
pub enum ActionOutcome {
    /// Write this new state of the parent (conflict-checked), answer with `answer`.
    Update { object: Value, answer: Value, code: u16 },
    /// Write this new state of the parent, then delete it gracefully
    /// (eviction), answer with `answer`. A dry run only judges the delete.
    Delete { object: Value, options: Value, answer: Value, code: u16 },
    /// Needs something outside the store (issuing a token): the server's issuer goes on with `request`.
    Issue { request: Value },
}

/// What rules may look at besides the objects: one moment and one snapshot.
pub struct RuleContext<'a> {
    pub env: &'a Env,
    pub now: Wall,
    /// The replica's memory, for checks against other objects.
    pub store: &'a Mvcc,
    pub user: &'a str,
    pub subresource: Option<&'a str>,
}

/// What writing to `status` does: the status strategy of a kind. The spec and
/// everything else outside metadata and status is always the stored one's.
#[derive(Clone, Copy)]
pub struct StatusRule {
    /// Fields of metadata of which the stored ones win; the others may change
    /// along with the status.
    pub stored_metadata: &'static [&'static str],
    /// What a status that leaves something out takes from the stored one.
    pub prepare: fn(new: &mut Value, old: &Value),
    pub validate: fn(&RuleContext<'_>, new: &Value, old: &Value, &mut ErrorList),
}

impl StatusRule {
    /// All metadata may change, nothing is filled in.
    pub const BASE: StatusRule = StatusRule { stored_metadata: &[], prepare: |_, _| {}, validate: |_, _, _, _| {} };

    /// `old` with the status of `new`, and what metadata may come along.
    pub fn view(&self, new: &Value, old: &Value) -> Value {
        let mut out = old.clone();
        let Some(map) = out.as_object_mut() else { return out };
        match new.get("status") {
            Some(status) => map.insert("status".into(), status.clone()),
            None => map.remove("status"),
        };
        let mut metadata = new.get("metadata").cloned().unwrap_or_default();
        if let Some(m) = metadata.as_object_mut() {
            for field in self.stored_metadata {
                match old.pointer(&format!("/metadata/{field}")) {
                    Some(v) => m.insert((*field).into(), v.clone()),
                    None => m.remove(*field),
                };
            }
        }
        map.insert("metadata".into(), metadata);
        (self.prepare)(&mut out, old);
        out
    }
}

/// One kind. Build with `Kind { …, ..Kind::BASE }`.
#[derive(Clone, Copy)]
pub struct Kind {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub list_kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub scope: Scope,
    pub verbs: &'static [Verb],
    /// Name in the schema table, e.g. `apps/v1.Deployment`.
    pub schema: &'static str,
    /// Where objects are stored: `pods`, `deployments.apps`. Two kinds may
    /// share one store (core and events.k8s.io Events).
    pub resource: &'static str,
    /// False for reviews, which are answered and not kept.
    pub stored: bool,
    pub subresources: &'static [Subresource],
    /// Empty: name and age.
    pub columns: &'static [Column],
    /// `conditions` of an object's row in a Table: a list, or null.
    pub row_conditions: fn(&Value) -> Value,
    pub selectable: &'static [SelectableField],
    /// PUT of a name that is not there creates it.
    pub create_on_update: bool,
    /// An update without resourceVersion (or with 0) is allowed.
    pub unconditional_update: bool,
    pub generation: GenerationRule,
    pub delete: DeleteRule,
    /// Validation of metadata.name (`prefix`: of generateName); upstream's messages.
    pub validate_name: fn(name: &str, prefix: bool) -> Vec<String>,
    /// Defaults that are not in the schema table. Run before and after mutating admission.
    pub defaults: fn(&mut Value),
    /// Strategy's PrepareForCreate: drop status, set phase, qosClass, …
    pub prepare_create: fn(&RuleContext<'_>, &mut Value),
    /// Strategy's PrepareForUpdate: fields that the user may not change are taken from `old`.
    pub prepare_update: fn(&RuleContext<'_>, new: &mut Value, old: &Value),
    /// Refuses a request to create with another answer than 422; runs first.
    pub refuse: fn(&RuleContext<'_>, &Value) -> Result<(), Status>,
    pub validate: fn(&RuleContext<'_>, &Value, &mut ErrorList),
    /// Runs after `validate`, on update only.
    pub validate_update: fn(&RuleContext<'_>, new: &Value, old: &Value, &mut ErrorList),
    pub status: Option<StatusRule>,
    /// Strategy's warnings, sent as `Warning` headers.
    pub warnings: fn(new: &Value, old: Option<&Value>) -> Vec<String>,
    /// Joins other keys to the write's own transaction (Service addresses and
    /// ports): may change the object, add guards and operations. `old` is
    /// `None` on create, `new` is `None` on delete. Called again on a guard that failed.
    pub allocate:
        Option<fn(&RuleContext<'_>, new: Option<&mut Value>, old: Option<&Value>, txn: &mut Txn) -> Result<(), Status>>,
    /// Converts from and to the stored version when two kinds share a store.
    pub to_storage: Option<fn(Value) -> Value>,
    pub from_storage: Option<fn(Value) -> Value>,
}

impl Kind {
    /// The defaults of an ordinary namespaced kind; every real kind overrides
    /// the names.
    pub const BASE: Kind = Kind {
        group: "",
        version: "v1",
        kind: "",
        list_kind: "",
        plural: "",
        singular: "",
        short_names: &[],
        categories: &[],
        scope: Scope::Namespaced,
        verbs: ALL_VERBS,
        schema: "",
        resource: "",
        stored: true,
        subresources: &[],
        columns: &[],
        row_conditions: |_| Value::Null,
        selectable: &[],
        create_on_update: false,
        unconditional_update: true,
        generation: GenerationRule::None,
        delete: DeleteRule::Status,
        validate_name: |_, _| Vec::new(),
        defaults: |_| {},
        prepare_create: |_, _| {},
        prepare_update: |_, _, _| {},
        refuse: |_, _| Ok(()),
        validate: |_, _, _| {},
        validate_update: |_, _, _, _| {},
        status: None,
        warnings: |_, _| Vec::new(),
        allocate: None,
        to_storage: None,
        from_storage: None,
    };

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods` or `deployments.apps`: how error messages name the resource.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.api_version(), self.kind)
    }
}
