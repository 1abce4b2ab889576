//! The snapshot that reconcilers and the scheduler compute from: every object
//! that they need, typed, at one revision.
//!
//! An object is decoded once per revision and shared. Kinds that no reconciler
//! looks into are known here by uid only (for garbage collection). A clone is
//! O(1), so a snapshot is taken per key and never locked.

use std::sync::Arc;

use imbl::OrdSet;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use triarch_mvcc::{Meta, Object, Revision};

use crate::index::{Index, Store};
use crate::{Name, resources};

macro_rules! typed {
    ($($field:ident: $ty:ident = $resource:expr;)*) => {
        /// The snapshot. See the module's text.
        #[derive(Clone, Debug, Default)]
        pub struct World {
            /// Every write up to here is in, none after it; of kinds that are not decoded once they are listed.
            pub revision: Revision,
            $(pub $field: Store<$ty>,)*
            /// Pods by `spec.nodeName`.
            pub pods_by_node: Index,
            /// Pods by the uid of their controller; those without one under [`orphans`].
            pub pods_by_controller: Index,
            /// ReplicaSets by the uid of their controller; those without one under [`orphans`].
            pub replica_sets_by_controller: Index,
            /// EndpointSlices by `namespace/service`.
            pub slices_by_service: Index,
            uids: OrdSet<u128>,
        }

        /// A decoded object, or just its metadata for kinds that are not in the snapshot.
        #[derive(Clone, Debug)]
        pub enum Any {
            $($ty(Arc<$ty>),)*
            Meta(Arc<Meta>),
        }

        /// The resources that are decoded.
        pub const TYPED: &[&str] = &[$($resource),*];

        impl Any {
            /// Decodes a stored object; a kind that is not in the snapshot keeps its metadata.
            pub fn decode(resource: &str, object: &Object, revision: Revision) -> Result<Any, serde_json::Error> {
                match resource {
                    $(r if r == $resource => Ok(Any::$ty(Arc::new(parse(object, revision)?))),)*
                    _ => Ok(Any::Meta(object.meta.clone())),
                }
            }

            pub fn metadata(&self) -> Option<&ObjectMeta> {
                match self {
                    $(Any::$ty(o) => Some(&o.metadata),)*
                    Any::Meta(_) => None,
                }
            }
        }

        impl World {
            /// The object as the snapshot has it; `None` for kinds that are not decoded.
            pub fn find(&self, resource: &str, name: &Name) -> Option<Any> {
                match resource {
                    $(r if r == $resource => self.$field.get(name).cloned().map(Any::$ty),)*
                    _ => None,
                }
            }

            /// What this snapshot has of `resource` and `later` has not.
            pub(crate) fn gone(&self, resource: &str, later: &World) -> Vec<(Name, Any, Arc<Meta>)> {
                match resource {
                    $(r if r == $resource => self
                        .$field
                        .iter()
                        .filter(|(n, _)| later.$field.get(n).is_none())
                        .map(|(n, o)| {
                            let uid = o.metadata.uid.clone().unwrap_or_default().into_boxed_str();
                            (n.clone(), Any::$ty(o.clone()), Arc::new(Meta { uid, ..Meta::default() }))
                        })
                        .collect(),)*
                    _ => Vec::new(),
                }
            }

            fn swap(&mut self, resource: &str, name: &Name, new: Option<Any>) -> Option<Any> {
                match new {
                    $(Some(Any::$ty(o)) => self.$field.insert(name.clone(), o).map(Any::$ty),)*
                    Some(Any::Meta(_)) => None,
                    None => match resource {
                        $(r if r == $resource => self.$field.remove(name).map(Any::$ty),)*
                        _ => None,
                    },
                }
            }
        }
    };
}

typed! {
    csrs: CertificateSigningRequest = resources::CERTIFICATE_SIGNING_REQUESTS;
    deployments: Deployment = resources::DEPLOYMENTS;
    endpoints: Endpoints = resources::ENDPOINTS;
    endpoint_slices: EndpointSlice = resources::ENDPOINT_SLICES;
    namespaces: Namespace = resources::NAMESPACES;
    nodes: Node = resources::NODES;
    pods: Pod = resources::PODS;
    replica_sets: ReplicaSet = resources::REPLICA_SETS;
    services: Service = resources::SERVICES;
    service_accounts: ServiceAccount = resources::SERVICE_ACCOUNTS;
}

/// One object's step from one revision to another.
#[derive(Clone, Debug)]
pub struct Change {
    pub resource: &'static str,
    pub name: Name,
    /// As the snapshot had it; `None` for a new object and for kinds that are not decoded.
    pub old: Option<Any>,
    /// `None`: deleted.
    pub new: Option<Any>,
    /// The metadata of the new object, or of the deleted one.
    pub meta: Arc<Meta>,
}

impl World {
    /// Puts or deletes one object; the revision is raised by the caller when it
    /// knows that nothing before it is missing.
    pub fn apply(&mut self, resource: &'static str, name: Name, new: Option<Any>, meta: Arc<Meta>) -> Change {
        let uid = uid_number(&meta.uid);
        if new.is_some() {
            self.uids.insert(uid);
        } else {
            self.uids.remove(&uid);
        }
        let old = self.swap(resource, &name, new.clone());
        // A name deleted and created again within one batch has another uid.
        if let (Some(o), Some(_)) = (old.as_ref().and_then(Any::metadata), &new) {
            let before = uid_number(o.uid.as_deref().unwrap_or_default());
            if before != uid {
                self.uids.remove(&before);
            }
        }
        let (a, b) = (old.as_ref(), new.as_ref());
        match resource {
            resources::PODS => {
                self.pods_by_node.replace(&name, a.and_then(node_of), b.and_then(node_of));
                let (a, b) = (a.and_then(controller_uid), b.and_then(controller_uid));
                self.pods_by_controller.replace(&name, a.as_deref(), b.as_deref());
            }
            resources::REPLICA_SETS => {
                let (a, b) = (a.and_then(controller_uid), b.and_then(controller_uid));
                self.replica_sets_by_controller.replace(&name, a.as_deref(), b.as_deref());
            }
            resources::ENDPOINT_SLICES => {
                let (a, b) = (a.and_then(service_of), b.and_then(service_of));
                self.slices_by_service.replace(&name, a.as_deref(), b.as_deref());
            }
            _ => {}
        }
        Change { resource, name, old, new, meta }
    }

    /// Whether an object with this uid is in the snapshot. Of kinds that are not decoded
    /// the answer is a hint: they come into a new leader's snapshot a little later.
    pub fn alive(&self, uid: &str) -> bool {
        self.uids.contains(&uid_number(uid))
    }

    pub fn pods_on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Arc<Pod>> {
        self.pods_by_node.get(node).filter_map(|n| self.pods.get(n))
    }

    pub fn pods_of<'a>(&'a self, controller: &'a str) -> impl Iterator<Item = &'a Arc<Pod>> {
        self.pods_by_controller.get(controller).filter_map(|n| self.pods.get(n))
    }

    pub fn slices_of<'a>(&'a self, service: &'a Name) -> Vec<&'a Arc<EndpointSlice>> {
        let key = format!("{}/{}", service.namespace, service.name);
        let names: Vec<_> = self.slices_by_service.get(&key).collect();
        names.into_iter().filter_map(|n| self.endpoint_slices.get(n)).collect()
    }
}

/// Stored bytes start at `"metadata"`; a brace in front makes them an object.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(
    object: &Object,
    revision: Revision,
) -> Result<T, serde_json::Error> {
    let mut buf = bytes::BytesMut::with_capacity(object.bytes.len() + 1);
    buf.extend_from_slice(b"{");
    object.write_to(&mut buf, revision);
    serde_json::from_slice(&buf)
}

/// A uid as a number, so that a set of all of them is small. Uids that are not
/// UUIDs are hashed (FNV-1a, 128 bits).
fn uid_number(uid: &str) -> u128 {
    let mut n = 0u128;
    let mut digits = 0;
    for c in uid.chars().filter(|c| *c != '-') {
        match c.to_digit(16) {
            Some(d) => n = n << 4 | u128::from(d),
            None => {
                digits = 0;
                break;
            }
        }
        digits += 1;
    }
    if digits == 32 {
        return n;
    }
    uid.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |h, b| {
        (h ^ u128::from(b)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

fn node_of(o: &Any) -> Option<&str> {
    match o {
        Any::Pod(p) => p.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty()),
        _ => None,
    }
}

/// The controller's uid, or for an orphan [`orphans`] of its namespace.
fn controller_uid(o: &Any) -> Option<String> {
    let m = o.metadata()?;
    let controller = m.owner_references.iter().flatten().find(|r| r.controller == Some(true));
    Some(controller.map_or_else(|| orphans(m.namespace.as_deref().unwrap_or_default()), |r| r.uid.clone()))
}

/// The index value of a namespace's objects without a controller.
pub fn orphans(namespace: &str) -> String {
    format!("/{namespace}")
}

fn service_of(o: &Any) -> Option<String> {
    let m = o.metadata()?;
    let service = m.labels.as_ref()?.get("kubernetes.io/service-name")?;
    Some(format!("{}/{service}", m.namespace.as_deref().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(uid: &str) -> Arc<Meta> {
        Arc::new(Meta { uid: uid.into(), ..Meta::default() })
    }

    fn pod(uid: &str, node: Option<&str>) -> Any {
        let mut p = Pod::default();
        p.metadata.uid = Some(uid.into());
        p.spec.get_or_insert_default().node_name = node.map(Into::into);
        Any::Pod(Arc::new(p))
    }

    #[test]
    fn a_snapshot_is_not_changed_by_later_writes() {
        let mut w = World::default();
        let n = Name::new("d", "p");
        w.apply(resources::PODS, n.clone(), Some(pod("u1", None)), meta("u1"));
        let before = w.clone();
        w.apply(resources::PODS, n.clone(), Some(pod("u1", Some("n1"))), meta("u1"));
        assert_eq!((w.pods_on("n1").count(), before.pods_on("n1").count()), (1, 0));
        let change = w.apply(resources::PODS, n, None, meta("u1"));
        assert!(change.old.is_some() && change.new.is_none());
        assert!(!w.alive("u1") && before.alive("u1"));
    }

    #[test]
    fn a_name_that_was_created_again_has_only_the_new_uid() {
        let mut w = World::default();
        let n = Name::new("d", "p");
        w.apply(resources::PODS, n.clone(), Some(pod("u1", None)), meta("u1"));
        w.apply(resources::PODS, n, Some(pod("u2", None)), meta("u2"));
        assert!(w.alive("u2") && !w.alive("u1"));
    }
}
