//! Who must hear of which key: one watcher per resource for the whole replica,
//! fanned out to sessions as sets of dirty keys.
//!
//! A session holds no queue of events, only the set of keys that changed since
//! it last looked (bounded by the keys that concern it); it reads the values
//! from the store when it sends. Invariant: a key that changed after a session
//! took its set is in its next one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use triarch_env::{Env, Scope};
use triarch_mvcc::{Event, Key, ListRequest, Mvcc, Object, Prefix, Watcher};
use triarch_registry::Registry;

use crate::node_set::{PODS, SHARED};

/// Events taken from a watcher at a time.
const BATCH: usize = 512;
/// A session with more dirty keys than this is sent its whole set instead.
const MAX_DIRTY: usize = 20_000;

type SessionId = u64;

/// The fan-out of one replica.
pub struct Board {
    store: Arc<Mvcc>,
    /// Where a pod's metadata has `spec.nodeName` among its selectable fields.
    node_field: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: SessionId,
    sessions: BTreeMap<SessionId, Seat>,
    by_node: BTreeMap<String, BTreeSet<SessionId>>,
    /// ConfigMaps and Secrets in use, by session.
    by_ref: BTreeMap<Key, BTreeSet<SessionId>>,
    node_of_pod: BTreeMap<Key, String>,
    pods_of_node: BTreeMap<String, BTreeSet<Key>>,
    loaded: bool,
}

struct Seat {
    node: String,
    shared: BTreeSet<&'static str>,
    refs: BTreeSet<Key>,
    dirty: BTreeSet<Key>,
    /// The set outgrew its bound, or the watch fell behind: send everything.
    whole: bool,
    wake: Arc<Notify>,
}

/// A session's place at the board; it leaves when this is dropped.
pub struct Place {
    board: Arc<Board>,
    id: SessionId,
    wake: Arc<Notify>,
}

/// What a session finds when it looks.
#[derive(Debug, PartialEq, Eq)]
pub enum Dirty {
    Keys(BTreeSet<Key>),
    /// Send the complete set again.
    Whole,
}

impl Board {
    /// Over the store of a registry; `None` when its pods cannot be selected by node.
    pub fn of(registry: &Registry) -> Option<Arc<Board>> {
        let fields = registry.kinds().by_resource(PODS)?.selectable;
        let node_field = fields.iter().position(|f| f.path == "spec.nodeName")?;
        Some(Board::new(registry.mvcc().clone(), node_field))
    }

    pub fn new(store: Arc<Mvcc>, node_field: usize) -> Arc<Board> {
        Arc::new(Board { store, node_field, state: Mutex::new(State::default()) })
    }

    /// Keeps the board current until `scope` ends.
    pub fn start(self: &Arc<Self>, env: &Env, scope: &Scope) {
        for resource in SHARED.into_iter().chain([PODS, "configmaps", "secrets"]) {
            let (board, env2) = (self.clone(), env.clone());
            env.spawn_in(scope, "gateway-board", async move { board.follow(&env2, resource).await });
        }
    }

    async fn follow(&self, env: &Env, resource: &'static str) {
        loop {
            match self.load(resource) {
                Some(mut watcher) => {
                    while let Ok(events) = watcher.next(BATCH).await {
                        self.take(resource, &events);
                    }
                    // Fell out of the watch window: what was missed is unknown.
                    tracing::warn!(resource, "gateway fell behind the watch window and starts over");
                }
                None => env.sleep(Duration::from_millis(100)).await,
            }
        }
    }

    fn load(&self, resource: &'static str) -> Option<Watcher> {
        let prefix = Prefix::resource(resource);
        let list = self.store.list(&ListRequest { prefix: prefix.clone(), after: None, limit: 0, at: None }).ok()?;
        let watcher = self.store.watch(prefix, list.revision).ok()?;
        let mut state = self.state.lock();
        if resource == PODS {
            state.node_of_pod.clear();
            state.pods_of_node.clear();
            for stored in &list.items {
                state.place_pod(&stored.key, self.node_of(&stored.object));
            }
            state.loaded = true;
        }
        state.everybody_whole();
        Some(watcher)
    }

    fn take(&self, resource: &str, events: &[Arc<Event>]) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        for e in events {
            if resource == PODS {
                let now = e.object.as_ref().and_then(|o| self.node_of(o));
                let before = state.node_of_pod.get(&e.key).cloned();
                if now != before {
                    state.place_pod(&e.key, now.clone());
                }
                let before = before.filter(|b| Some(b) != now.as_ref());
                for node in before.into_iter().chain(now) {
                    let ids: Vec<SessionId> = state.by_node.get(&node).into_iter().flatten().copied().collect();
                    state.mark(&ids, &e.key);
                }
            } else if SHARED.contains(&resource) {
                for seat in state.sessions.values_mut().filter(|s| s.shared.contains(resource)) {
                    seat.mark(&e.key);
                }
            } else if let Some(ids) = state.by_ref.get(&e.key) {
                let ids: Vec<SessionId> = ids.iter().copied().collect();
                state.mark(&ids, &e.key);
            }
        }
    }

    /// Seats a session for `node`; it finds [`Dirty::Whole`] first.
    pub fn join(self: &Arc<Self>, node: &str, without: &[String]) -> Place {
        let mut state = self.state.lock();
        state.next += 1;
        let (id, wake) = (state.next, Arc::new(Notify::new()));
        let seat = Seat {
            node: node.to_owned(),
            shared: SHARED.into_iter().filter(|r| !without.iter().any(|w| w == r)).collect(),
            refs: BTreeSet::new(),
            dirty: BTreeSet::new(),
            whole: true,
            wake: wake.clone(),
        };
        wake.notify_one();
        state.sessions.insert(id, seat);
        state.by_node.entry(node.to_owned()).or_default().insert(id);
        Place { board: self.clone(), id, wake }
    }

    /// Sessions seated now.
    pub fn sessions(&self) -> usize {
        self.state.lock().sessions.len()
    }

    /// The node that a stored pod is bound to.
    fn node_of(&self, pod: &Object) -> Option<String> {
        pod.meta.fields.get(self.node_field).map(|n| n.to_string()).filter(|n| !n.is_empty())
    }

    /// Pods bound to `node`; `None` until the board has loaded them.
    pub fn pods_of(&self, node: &str) -> Option<BTreeSet<Key>> {
        let state = self.state.lock();
        state.loaded.then(|| state.pods_of_node.get(node).cloned().unwrap_or_default())
    }
}

impl State {
    fn place_pod(&mut self, key: &Key, node: Option<String>) {
        let before = match &node {
            Some(n) => self.node_of_pod.insert(key.clone(), n.clone()),
            None => self.node_of_pod.remove(key),
        };
        if let Some(pods) = before.as_ref().and_then(|b| self.pods_of_node.get_mut(b)) {
            pods.remove(key);
        }
        if let Some(n) = node {
            self.pods_of_node.entry(n).or_default().insert(key.clone());
        }
    }

    fn mark(&mut self, ids: &[SessionId], key: &Key) {
        for id in ids {
            if let Some(seat) = self.sessions.get_mut(id) {
                seat.mark(key);
            }
        }
    }

    fn everybody_whole(&mut self) {
        for seat in self.sessions.values_mut() {
            seat.whole = true;
            seat.wake.notify_one();
        }
    }
}

impl Seat {
    fn mark(&mut self, key: &Key) {
        if self.dirty.len() >= MAX_DIRTY {
            self.dirty.clear();
            self.whole = true;
        }
        if !self.whole {
            self.dirty.insert(key.clone());
        }
        self.wake.notify_one();
    }
}

impl Place {
    /// Waits until there is something to send, and takes it.
    pub async fn next(&self) -> Dirty {
        loop {
            {
                let mut state = self.board.state.lock();
                let loaded = state.loaded;
                if let Some(seat) = state.sessions.get_mut(&self.id) {
                    if seat.whole && loaded {
                        seat.whole = false;
                        seat.dirty.clear();
                        return Dirty::Whole;
                    }
                    if !seat.whole && !seat.dirty.is_empty() {
                        return Dirty::Keys(std::mem::take(&mut seat.dirty));
                    }
                }
            }
            self.wake.notified().await;
        }
    }

    /// Tells the board which ConfigMaps and Secrets concern the session now.
    /// Keys that are new here are marked dirty, in case they changed between
    /// the session's look at the store and this call.
    pub fn refer<'a>(&self, refs: impl Iterator<Item = &'a Key>) {
        let wanted: BTreeSet<Key> = refs.cloned().collect();
        let mut guard = self.board.state.lock();
        let state = &mut *guard;
        let Some(seat) = state.sessions.get_mut(&self.id) else { return };
        let old = std::mem::replace(&mut seat.refs, wanted.clone());
        for key in wanted.difference(&old) {
            seat.mark(key);
            state.by_ref.entry(key.clone()).or_default().insert(self.id);
        }
        for key in old.difference(&wanted) {
            state.forget_ref(key, self.id);
        }
    }
}

impl State {
    fn forget_ref(&mut self, key: &Key, id: SessionId) {
        if let Some(ids) = self.by_ref.get_mut(key) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_ref.remove(key);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.board.state.lock();
        let Some(seat) = state.sessions.remove(&self.id) else { return };
        for key in &seat.refs {
            state.forget_ref(key, self.id);
        }
        if let Some(ids) = state.by_node.get_mut(&seat.node) {
            ids.remove(&self.id);
            if ids.is_empty() {
                state.by_node.remove(&seat.node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use triarch_env::TokioRuntime;
    use triarch_mvcc::{Db, LocalDb, Meta, Op, Txn};

    use super::*;

    async fn put(db: &Arc<LocalDb>, key: &Key, body: Value) {
        let node = body["spec"]["nodeName"].as_str().unwrap_or_default();
        let meta = Meta { fields: [node.into()].into(), ..Meta::default() };
        let bytes = body.to_string()[1..].to_owned().into_bytes().into();
        let object = Object { bytes, slot: None, meta: Arc::new(meta) };
        db.commit(Txn { ops: vec![Op::Put(key.clone(), object)], ..Txn::default() }).await.unwrap();
    }

    #[tokio::test]
    async fn a_session_hears_of_its_own_pods_and_references_only() {
        let (db, env, scope) =
            (LocalDb::new(triarch_mvcc::Limits::default()), Env::new(TokioRuntime::current()), Scope::new());
        let board = Board::new(db.mvcc().clone(), 0);
        board.start(&env, &scope);
        let place = board.join("n1", &[]);
        assert_eq!(place.next().await, Dirty::Whole);
        // The other resources may still be loading, and each asks for one more
        // complete set; wait them out by their effect.
        let mine = Key::new(PODS, "a", "mine");
        put(&db, &Key::new(PODS, "a", "theirs"), json!({"spec": {"nodeName": "n2"}})).await;
        put(&db, &mine, json!({"spec": {"nodeName": "n1"}})).await;
        loop {
            if let Dirty::Keys(keys) = place.next().await {
                assert_eq!(keys, [mine.clone()].into());
                break;
            }
            if board.pods_of("n1") == Some([mine.clone()].into()) {
                break;
            }
        }
        assert_eq!(board.pods_of("n1"), Some([mine.clone()].into()));
        drop(place);
        assert_eq!(board.sessions(), 0);
        scope.cancel();
    }
}
