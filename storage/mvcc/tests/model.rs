//! The store against a model that keeps everything and is obviously right.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use triarch_mvcc::*;

/// (bytes, create revision, mod revision) by key.
type State = BTreeMap<Key, (Vec<u8>, u64, u64)>;

#[derive(Default)]
struct Model {
    /// The state after each revision, from 0 on.
    states: Vec<State>,
    events: Vec<(u64, Key, Option<Vec<u8>>, Option<Vec<u8>>)>,
    floor: u64,
}

impl Model {
    fn new() -> Model {
        Model { states: vec![State::new()], ..Model::default() }
    }

    fn head(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn now(&self) -> &State {
        self.states.last().unwrap()
    }

    fn apply(&mut self, txn: &Txn, epoch: Epoch) -> TxnOutcome {
        if txn.epoch.is_some_and(|e| e != epoch) {
            return TxnOutcome::Fenced;
        }
        for (index, g) in txn.guards.iter().enumerate() {
            let found = self.now().get(g.key()).map(|o| o.2);
            let holds = match g {
                Guard::Absent(_) => found.is_none(),
                Guard::Present(_) => found.is_some(),
                Guard::ModRevision(_, r) => found == Some(*r),
                Guard::Uid(_, uid) => found.is_some() && uid.is_empty(),
            };
            if !holds {
                return TxnOutcome::GuardFailed { index: index as u32, found };
            }
        }
        let mut revisions = Vec::new();
        for op in &txn.ops {
            let (key, value) = match op {
                Op::Put(k, o) => (k, Some(o.bytes.to_vec())),
                Op::Delete(k) => (k, None),
                Op::Compact(r) => {
                    self.floor = self.floor.max((*r).min(self.head()));
                    revisions.push(0);
                    continue;
                }
                _ => unreachable!("the strategy makes none"),
            };
            let held = self.now().get(key).cloned();
            if held.as_ref().map(|h| &h.0) == value.as_ref() {
                revisions.push(held.map_or(0, |h| h.2));
                continue;
            }
            let revision = self.head() + 1;
            let mut state = self.now().clone();
            match &value {
                Some(v) => {
                    let create = held.as_ref().map_or(revision, |h| h.1);
                    state.insert(key.clone(), (v.clone(), create, revision));
                }
                None => drop(state.remove(key)),
            }
            self.events.push((revision, key.clone(), value, held.map(|h| h.0)));
            self.states.push(state);
            revisions.push(revision);
        }
        TxnOutcome::Committed { revisions }
    }
}

fn key() -> impl Strategy<Value = Key> {
    let resource = prop::sample::select(vec!["pods", "pods.x", "nodes"]);
    let namespace = prop::sample::select(vec!["", "a", "a-b", "b"]);
    let name = prop::sample::select(vec!["x", "y", "z"]);
    (resource, namespace, name).prop_map(|(r, ns, n)| Key::new(r, ns, n))
}

fn prefix() -> impl Strategy<Value = Prefix> {
    key().prop_flat_map(|k| {
        let all = Prefix::resource(k.resource());
        let ns = Prefix::namespaced(k.resource(), k.namespace());
        let one = Prefix { name: Some(k.name().into()), ..ns.clone() };
        let name = Prefix { name: Some(k.name().into()), ..all.clone() };
        prop_oneof![Just(all), Just(ns), Just(one), Just(name)]
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (key(), 0..4u8).prop_map(|(k, v)| Op::Put(k, Object::plain(vec![v; 3]))),
        4 => key().prop_map(Op::Delete),
        1 => (0..60u64).prop_map(Op::Compact),
    ]
}

fn guard() -> impl Strategy<Value = Guard> {
    prop_oneof![
        key().prop_map(Guard::Absent),
        key().prop_map(Guard::Present),
        (key(), 0..30u64).prop_map(|(k, r)| Guard::ModRevision(k, r)),
        key().prop_map(|k| Guard::Uid(k, "".into())),
    ]
}

fn txn() -> impl Strategy<Value = Txn> {
    let guards = prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(guard(), 1..3)];
    let epoch = prop_oneof![4 => Just(None), 1 => (1..3u64).prop_map(|term| Some(Epoch { term, node: 1 }))];
    (guards, prop::collection::vec(op(), 1..4), epoch).prop_map(|(guards, ops, epoch)| Txn { guards, ops, epoch })
}

#[derive(Clone, Debug)]
enum Step {
    /// A batch; each transaction with a proposal number that may be a retry's.
    Entry(Vec<(u64, Txn)>, u64),
    Watch(Prefix, u64),
    /// Which watcher reads, and how much.
    Read(usize, usize),
    List(ListRequest),
    Get(Key, u64),
    /// Export a checkpoint up to the floor.
    Export,
    /// Goes on with a store that was restored from the checkpoint and the log.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let list = (prefix(), prop::option::of(key()), 0..5usize, prop::option::of(0..80u64));
    prop_oneof![
        8 => (prop::collection::vec((1..60u64, txn()), 0..4), 1..3u64).prop_map(|(b, t)| Step::Entry(b, t)),
        2 => (prefix(), 0..90u64).prop_map(|(p, a)| Step::Watch(p, a)),
        4 => (0..8usize, 1..9usize).prop_map(|(w, n)| Step::Read(w, n)),
        3 => list.prop_map(|(prefix, after, limit, at)| Step::List(ListRequest { prefix, after, limit, at })),
        2 => (key(), 0..80u64).prop_map(|(k, r)| Step::Get(k, r)),
        1 => Just(Step::Export),
        1 => Just(Step::Restart),
    ]
}

struct Follower {
    watcher: Watcher,
    prefix: Prefix,
    after: u64,
    /// Events of the model that it has been given, as an index.
    read: usize,
    /// It had read everything when it last looked, so only a loss may end it.
    idle: bool,
}

fn check_list(db: &Mvcc, model: &Model, lowest: u64, req: &ListRequest) {
    let at = req.at.unwrap_or(model.head());
    let got = db.list(req);
    if at > model.head() {
        assert_eq!(got, Err(ReadError::Future { head: model.head() }));
        return;
    }
    if at < lowest {
        assert_eq!(got, Err(ReadError::Compacted { floor: lowest }));
        return;
    }
    let all: Vec<_> = model.states[at as usize]
        .iter()
        .filter(|(k, _)| req.prefix.contains(k) && req.after.as_ref().is_none_or(|a| *k > a))
        .map(|(k, (v, create, modified))| (k.clone(), v.clone(), *create, *modified))
        .collect();
    let n = if req.limit == 0 { all.len() } else { req.limit.min(all.len()) };
    let got = got.unwrap();
    let items: Vec<_> =
        got.items.iter().map(|s| (s.key.clone(), s.object.bytes.to_vec(), s.create_revision, s.mod_revision)).collect();
    assert_eq!(items, all[..n]);
    assert_eq!((got.revision, got.remaining, got.more), (at, (all.len() - n) as u64, all.len() > n));
    let here = model.now().keys().filter(|k| req.prefix.contains(k)).count();
    assert_eq!(db.count(&req.prefix), here as u64);
}

fn check_events(model: &Model, f: &mut Follower, got: &[Arc<Event>]) {
    for e in got {
        let next = model.events[f.read..]
            .iter()
            .position(|(revision, key, ..)| *revision > f.after && f.prefix.contains(key))
            .expect("an event that the model does not have");
        let (revision, key, value, prev) = &model.events[f.read + next];
        f.read += next + 1;
        assert_eq!((e.revision, &e.key), (*revision, key), "gap or double");
        assert_eq!(e.object.as_ref().map(|o| o.bytes.to_vec()), *value);
        assert_eq!(e.prev.as_ref().map(|o| o.bytes.to_vec()), *prev);
        assert_eq!(e.kind, if value.is_some() { EventKind::Put } else { EventKind::Delete });
        let before = model.states[*revision as usize - 1].get(key);
        assert_eq!(e.prev_revision, before.map_or(0, |b| b.2));
    }
}

fn pending(model: &Model, f: &Follower) -> Option<u64> {
    let mut rest = model.events[f.read..].iter();
    rest.find(|(revision, key, ..)| *revision > f.after && f.prefix.contains(key)).map(|e| e.0)
}

/// What a checkpoint on disk would hold.
struct Checkpoint {
    header: Header,
    objects: BTreeMap<Key, Stored>,
}

fn run(steps: Vec<Step>, window_events: usize) {
    let limits = Limits { window_events, ..Limits::default() };
    let mut db = Mvcc::new(limits.clone());
    let mut model = Model::new();
    let mut followers: Vec<Follower> = Vec::new();
    let mut log: Vec<(Vec<(ProposalId, Txn)>, AppliedAt)> = Vec::new();
    let mut outcomes: BTreeMap<u64, TxnOutcome> = BTreeMap::new();
    let mut checkpoint = Checkpoint { header: db.header(), objects: BTreeMap::new() };
    for step in steps {
        // Hard bounds may have dropped more than the floor says.
        let lowest = db.compacted();
        assert!(
            lowest >= model.floor
                && (window_events < 1000 || lowest == model.floor || lowest == checkpoint.header.revision)
        );
        match step {
            Step::Entry(batch, term) => {
                let at = AppliedAt { index: log.len() as u64 + 1, term, node: 1 };
                let batch: Vec<_> =
                    batch.into_iter().map(|(sequence, txn)| (ProposalId { incarnation: 9, sequence }, txn)).collect();
                let expected: Vec<_> = batch
                    .iter()
                    .map(|(id, txn)| match outcomes.get(&id.sequence) {
                        Some(first) => first.clone(),
                        None => {
                            let outcome = model.apply(txn, at.epoch());
                            outcomes.insert(id.sequence, outcome.clone());
                            outcome
                        }
                    })
                    .collect();
                assert_eq!(db.apply(&batch, at), expected);
                assert_eq!(db.revision(), model.head());
                log.push((batch, at));
            }
            Step::Watch(prefix, after) => match db.watch(prefix.clone(), after) {
                Ok(watcher) => {
                    assert!(after >= lowest);
                    followers.push(Follower { watcher, prefix, after, read: 0, idle: false });
                }
                Err(e) => {
                    assert!(after < lowest);
                    assert_eq!(e, ReadError::Compacted { floor: lowest });
                }
            },
            Step::Read(which, max) => {
                if followers.is_empty() {
                    continue;
                }
                let which = which % followers.len();
                let f = &mut followers[which];
                match f.watcher.try_next(max) {
                    Ok(events) => {
                        assert!(events.len() <= max);
                        check_events(&model, f, &events);
                        // One that waits for the future may have to be told for what it would have left out.
                        f.idle = events.is_empty() && model.head() >= f.after;
                        if events.is_empty() {
                            assert_eq!(pending(&model, f), None);
                            assert_eq!(f.watcher.progress(), model.head().max(f.after));
                        }
                        assert!(pending(&model, f).is_none_or(|next| f.watcher.progress() < next));
                    }
                    Err(WatchError::Compacted { floor }) => {
                        let lost = pending(&model, f).is_some_and(|next| next <= floor);
                        assert!(lost || !f.idle, "told too slow without a loss");
                        followers.remove(which);
                    }
                }
            }
            Step::List(req) => check_list(&db, &model, lowest, &req),
            Step::Get(key, at) => {
                let now = model.now().get(&key).map(|o| o.2);
                assert_eq!(db.get(&key).map(|s| s.mod_revision), now);
                if (lowest..=model.head()).contains(&at) {
                    let then = model.states[at as usize].get(&key).map(|o| (o.0.clone(), o.1, o.2));
                    let got = db.get_at(&key, at).unwrap();
                    assert_eq!(got.map(|s| (s.object.bytes.to_vec(), s.create_revision, s.mod_revision)), then);
                }
            }
            Step::Export => match db.export(db.compacted(), 20) {
                Ok(Some(export)) => {
                    for change in &export.changes {
                        match &change.stored {
                            Some(s) => drop(checkpoint.objects.insert(change.key.clone(), s.clone())),
                            None => drop(checkpoint.objects.remove(&change.key)),
                        }
                    }
                    checkpoint.header = export.header.clone();
                    db.exported(&export);
                    let at = checkpoint.header.revision;
                    assert!(at <= lowest);
                    let held: Vec<_> = checkpoint.objects.values().map(|s| (s.key.clone(), s.mod_revision)).collect();
                    let then: Vec<_> = model.states[at as usize].iter().map(|(k, o)| (k.clone(), o.2)).collect();
                    assert_eq!(held, then);
                    let pin = db.pin_exported().unwrap();
                    assert_eq!(pin.header(), checkpoint.header);
                    assert_eq!(pages(&pin), checkpoint.objects.values().cloned().collect::<Vec<_>>());
                }
                Ok(None) => {}
                Err(ExportLost) => {
                    assert!(window_events < 1000);
                    let pin = db.begin_whole();
                    checkpoint.header = pin.header();
                    checkpoint.objects = pages(&pin).into_iter().map(|s| (s.key.clone(), s)).collect();
                }
            },
            Step::Restart => {
                let mut import = Import::new(limits.clone(), &checkpoint.header).unwrap();
                for s in checkpoint.objects.values() {
                    import.add(s.clone()).unwrap();
                }
                let new = import.finish();
                for (batch, at) in &log[checkpoint.header.applied.index as usize..] {
                    new.apply(batch, *at);
                }
                assert_eq!((new.header(), new.window().main.floor), (db.header(), db.window().main.floor));
                assert_eq!(pages(&new.pin()), pages(&db.pin()));
                db = new;
                followers.clear();
            }
        }
    }
}

fn pages(pin: &Pin) -> Vec<Stored> {
    let mut all: Vec<Stored> = Vec::new();
    loop {
        let page = pin.page(all.last().map(|s| &s.key), 3, 40);
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(steps in prop::collection::vec(step(), 1..120)) {
        run(steps, 100_000);
    }

    #[test]
    fn a_store_at_its_hard_bounds_forgets_but_never_lies(steps in prop::collection::vec(step(), 1..120)) {
        run(steps, 7);
    }
}
