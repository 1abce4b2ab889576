//! Leases: what is replicated of them.
//!
//! A lease is an object of [`LEASE_RESOURCE`] that says how long it was granted
//! for; its keys name it as their owner. So checkpoints, snapshots, the index of
//! a lease's keys and watches of leases are the store's own. When a lease ends
//! is not replicated: the leader knows it, and writes [`FacadeOp::Revoke`].
//!
//! [`FacadeOp::Revoke`]: crate::FacadeOp::Revoke

use crate::state::State;
use crate::{Event, FACADE_RESOURCE, Key, ListRequest, Mvcc, Object, OwnerRef, Prefix, Revision, Stored};

/// The resource of leases. Their revisions are the main counter's: granting one
/// moves no revision of the facade's, as in etcd.
pub const LEASE_RESOURCE: &str = "~etcd-lease";

const OWNER: &str = "etcd-lease/";

/// A lease as it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FacadeLease {
    /// Not 0.
    pub id: i64,
    /// Seconds.
    pub ttl: i64,
    /// When it was granted: what tells it from a later one of the same id.
    pub revision: Revision,
}

/// Where a lease is kept.
pub fn lease_key(id: i64) -> Key {
    Key::new(LEASE_RESOURCE, "", &format!("{id:016x}"))
}

/// What is kept of a lease of `ttl` seconds.
pub fn lease_object(ttl: i64) -> Object {
    Object::plain(ttl.to_string())
}

fn lease(key: &Key, object: &Object, revision: Revision) -> Option<FacadeLease> {
    let ttl = std::str::from_utf8(&object.bytes).ok()?.parse().ok()?;
    Some(FacadeLease { id: lease_id(key)?, ttl, revision })
}

fn lease_of(stored: &Stored) -> Option<FacadeLease> {
    lease(&stored.key, &stored.object, stored.mod_revision)
}

/// What an event of [`LEASE_RESOURCE`] says: the id, and the lease unless it is gone.
pub fn lease_event(e: &Event) -> Option<(i64, Option<FacadeLease>)> {
    Some((lease_id(&e.key)?, e.object.as_ref().and_then(|o| lease(&e.key, o, e.revision))))
}

fn lease_id(key: &Key) -> Option<i64> {
    u64::from_str_radix(key.name(), 16).ok().map(|id| id as i64)
}

/// The lease that a value of the facade's is attached to; 0: none.
pub fn facade_lease(object: &Object) -> i64 {
    let owner = object.meta.owners.first().and_then(|o| o.uid.strip_prefix(OWNER));
    owner.and_then(|id| u64::from_str_radix(id, 16).ok()).map_or(0, |id| id as i64)
}

fn uid(id: i64) -> Box<str> {
    format!("{OWNER}{id:016x}").into()
}

pub(super) fn owner(id: i64) -> OwnerRef {
    OwnerRef { uid: uid(id), controller: false, block_deletion: false }
}

pub(super) fn granted(state: &State, id: i64) -> bool {
    let table = state.table(LEASE_RESOURCE.as_bytes());
    table.and_then(|t| t.slots.get(&lease_key(id))).is_some_and(|s| s.object.is_some())
}

/// A lease's keys in order. An API object can name any owner, so only the
/// facade's count.
pub(super) fn attached(state: &State, id: i64) -> impl Iterator<Item = &Key> {
    let owned = state.owned(&uid(id));
    owned.filter(|k| k.resource_bytes() == FACADE_RESOURCE.as_bytes())
}

impl Mvcc {
    /// A lease that was granted and not revoked.
    pub fn lease(&self, id: i64) -> Option<FacadeLease> {
        self.get(&lease_key(id)).as_ref().and_then(lease_of)
    }

    /// All leases by id (as unsigned numbers), and the head that they are of.
    pub fn leases(&self) -> (Vec<FacadeLease>, Revision) {
        // The present can always be read.
        let all = self.list(&ListRequest::all(Prefix::resource(LEASE_RESOURCE)));
        all.map_or_else(|_| (Vec::new(), 0), |l| (l.items.iter().filter_map(lease_of).collect(), l.revision))
    }

    /// How many leases there are.
    pub fn lease_count(&self) -> u64 {
        self.count(&Prefix::resource(LEASE_RESOURCE))
    }

    /// The keys that are attached to a lease, in order.
    pub fn lease_keys(&self, id: i64) -> Vec<Key> {
        attached(&self.state.read(), id).cloned().collect()
    }
}
