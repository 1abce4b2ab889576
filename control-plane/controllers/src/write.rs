//! What reconcilers decide: writes, in steps, with the Events that tell of them.

use std::time::Duration;

use serde_json::Value;

use crate::{Key, Name};

/// One change of one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    Create {
        resource: &'static str,
        object: Value,
    },
    /// Replaces the object; conflict-checked by the resourceVersion inside it.
    Update {
        resource: &'static str,
        object: Value,
    },
    /// Replaces through a subresource: `status`, `approval`, `finalize`.
    UpdateSub {
        resource: &'static str,
        subresource: &'static str,
        object: Value,
    },
    /// JSON merge patch of the object or of a subresource. A
    /// `metadata.resourceVersion` or `metadata.uid` in it is a precondition.
    Patch {
        resource: &'static str,
        name: Name,
        subresource: Option<&'static str>,
        patch: Value,
    },
    Delete {
        resource: &'static str,
        name: Name,
        options: DeleteOptions,
    },
    /// Deletes a namespace's objects of one resource, a page at a time.
    DeleteAll {
        resource: &'static str,
        namespace: String,
    },
    /// `pods/binding`: refused when the pod has a node.
    Bind {
        name: Name,
        uid: String,
        node: String,
    },
}

impl Op {
    pub fn resource(&self) -> &'static str {
        match self {
            Op::Create { resource, .. }
            | Op::Update { resource, .. }
            | Op::UpdateSub { resource, .. }
            | Op::Patch { resource, .. }
            | Op::Delete { resource, .. }
            | Op::DeleteAll { resource, .. } => resource,
            Op::Bind { .. } => crate::resources::PODS,
        }
    }

    /// The object that the write names beside its content.
    pub fn name(&self) -> Option<&Name> {
        match self {
            Op::Patch { name, .. } | Op::Delete { name, .. } | Op::Bind { name, .. } => Some(name),
            Op::Create { .. } | Op::Update { .. } | Op::UpdateSub { .. } | Op::DeleteAll { .. } => None,
        }
    }
}

/// `metav1.DeleteOptions`, as far as controllers use it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub propagation: Option<&'static str>,
    pub grace_period_seconds: Option<i64>,
}

/// What an Event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub resource_version: String,
}

/// An Event to record. `{name}` in the message becomes the name that the write
/// ended up with, `{error}` its error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub about: ObjectRef,
    /// `Normal` or `Warning`.
    pub kind: &'static str,
    pub reason: &'static str,
    pub message: String,
    pub component: &'static str,
}

/// A write and the Events for its two ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    pub op: Op,
    pub on_ok: Option<Note>,
    pub on_err: Option<Note>,
}

impl From<Op> for Write {
    fn from(op: Op) -> Write {
        Write { op, on_ok: None, on_err: None }
    }
}

impl Write {
    pub fn ok(mut self, note: Note) -> Write {
        self.on_ok = Some(note);
        self
    }

    pub fn err(mut self, note: Note) -> Write {
        self.on_err = Some(note);
        self
    }
}

/// How writes follow each other. A step starts when the one before it ended;
/// an error ends the plan after its step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// In order; the first error ends it.
    Sequence(Vec<Write>),
    /// All at once; all are tried.
    All(Vec<Write>),
    /// 1, 2, 4, … at a time; a batch with an error is the last, so that a
    /// quota that is full is asked once and not five hundred times.
    SlowStart(Vec<Write>),
    /// Just an Event.
    Note(Note),
}

/// A reconciler's answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Look at keys again after this long (the own key or a follower).
    pub requeue: Vec<(Key, Duration)>,
    /// The key rests this long before changes bring it back: what is dear to
    /// compute is computed less often while much is going on.
    pub cooldown: Duration,
}

impl Plan {
    pub fn nothing() -> Plan {
        Plan::default()
    }

    pub fn one(op: Op) -> Plan {
        Plan { steps: vec![Step::Sequence(vec![op.into()])], ..Plan::default() }
    }

    pub fn push(&mut self, write: impl Into<Write>) {
        let write = write.into();
        if let Some(Step::Sequence(s)) = self.steps.last_mut() {
            s.push(write);
        } else {
            self.steps.push(Step::Sequence(vec![write]));
        }
    }

    pub fn note(&mut self, note: Note) {
        self.steps.push(Step::Note(note));
    }

    pub fn after(&mut self, key: &Key, delay: Duration) {
        self.requeue.push((key.clone(), delay));
    }

    /// All writes in plan order, for tests and for the driver's accounting.
    pub fn writes(&self) -> impl Iterator<Item = &Write> {
        self.steps.iter().flat_map(|s| match s {
            Step::Sequence(w) | Step::All(w) | Step::SlowStart(w) => w.as_slice(),
            Step::Note(_) => &[],
        })
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}
