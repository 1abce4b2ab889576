//! Peers that should not be listened to: of other clusters and lives, with
//! frames that mean nothing, and with a dead leader's frames once more. They are
//! refused by name and counted, and the cluster neither loses nor changes a thing.

mod common;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use common::{Cluster, put};
use parking_lot::Mutex;
use triarch_mvcc::{Db, Prefix};
use triarch_raft::{Call, Lane, Message, NodeId, PeerError, PeerHandler, PeerStream, Sender};

const CALLS: [Call; 5] = [Call::Vote, Call::TransferLeader, Call::ReadIndex, Call::LeaderLost, Call::Status];

fn refused_so_far(c: &Cluster, id: NodeId) -> u64 {
    c.db(id).counters().peers_refused.load(Relaxed)
}

fn state(c: &Cluster, id: NodeId) -> Vec<(String, Vec<u8>, u64, u64)> {
    let list = triarch_mvcc::ListRequest::all(Prefix::resource("configmaps"));
    let items = c.db(id).mvcc().list(&list).unwrap().items.into_iter();
    items.map(|s| (format!("{:?}", s.key), s.object.bytes.to_vec(), s.create_revision, s.mod_revision)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_a_peer_is_refused_on_every_call_and_lane_and_counted() {
    let c = Cluster::of(3).await;
    let handler = c.db(1).peer_handler();
    let good = Sender { cluster_id: "test".into(), id: 2, incarnation: 2000, to: 1 };
    let bad = [
        (Sender { cluster_id: "other".into(), ..good.clone() }, "of cluster other, this one is of cluster test"),
        (Sender { cluster_id: String::new(), ..good.clone() }, "this one is of cluster test"),
        (Sender { to: 3, ..good.clone() }, "meant for replica 3, this is replica 1"),
        (Sender { incarnation: 1, ..good.clone() }, "a wiped replica cannot come back under its old id"),
    ];
    let before = (refused_so_far(&c, 1), c.db(1).leader_watch().view());
    let mut asked = 0;
    for (sender, want) in &bad {
        for call in CALLS {
            let e = handler.call(sender, call, Bytes::new()).await.unwrap_err();
            assert!(matches!(&e, PeerError::Refused(why) if why.contains(want)), "{call:?}: {e}");
            asked += 1;
        }
        for lane in Lane::ALL {
            let e = handler.stream(sender, lane, PeerStream::pair().0).unwrap_err();
            assert!(matches!(&e, PeerError::Refused(why) if why.contains(want)), "{lane:?}: {e}");
            asked += 1;
        }
    }
    assert_eq!(refused_so_far(&c, 1) - before.0, asked);
    assert_eq!(c.db(1).leader_watch().view(), before.1, "and nothing has moved");
    c.put(2, "a", "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_mean_nothing_end_their_stream_and_are_counted() {
    let c = Cluster::of(3).await;
    let leader = c.leader().await;
    let to = *c.nodes.keys().find(|id| **id != leader).unwrap();
    let handler = c.db(to).peer_handler();
    let from = *c.nodes.keys().find(|id| **id != leader && **id != to).unwrap();
    let sender = Sender { cluster_id: "test".into(), id: from, incarnation: from * 1000, to };
    let view = c.db(to).leader_watch().view();
    let bodies: Vec<Bytes> =
        vec![Bytes::new(), vec![0xff; 3].into(), vec![0xff; 40].into(), vec![7; 1 << 20].into(), "text".into()];
    for body in &bodies {
        for call in [Call::Vote, Call::TransferLeader, Call::LeaderLost] {
            let e = handler.call(&sender, call, body.clone()).await.unwrap_err();
            assert!(matches!(e, PeerError::Failed(..)), "{call:?}: {e}");
        }
    }
    let before = refused_so_far(&c, to);
    let mut sent = 0;
    for lane in [Lane::Log, Lane::Heartbeat, Lane::Forward] {
        for body in &bodies {
            let (mut near, far) = PeerStream::pair();
            handler.stream(&sender, lane, far).unwrap();
            let message = Message { body: body.clone(), payloads: vec![Bytes::from_static(b"payload"); 3] };
            near.tx.send(message).await.unwrap();
            let end = tokio::time::timeout(Duration::from_secs(20), near.rx.recv()).await;
            assert_eq!(end.expect("the stream ends"), None, "{lane:?} {} bytes", body.len());
            sent += 1;
        }
    }
    for _ in 0..2000 {
        if refused_so_far(&c, to) - before == sent {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(refused_so_far(&c, to) - before, sent);
    assert_eq!(c.db(to).leader_watch().view(), view);
    c.put(to, "a", "1").await;
}

/// What came in for one replica, in order.
#[derive(Clone, Default)]
struct Tape(Arc<Mutex<Vec<Recorded>>>);

#[derive(Clone)]
enum Recorded {
    Call(Sender, Call, Bytes),
    /// With the number of the stream that it came on.
    Frame(usize, Sender, Lane, Message),
}

/// Hands everything on, and keeps a copy.
struct Recorder {
    inner: Arc<dyn PeerHandler>,
    tape: Tape,
    streams: Mutex<usize>,
}

#[async_trait::async_trait]
impl PeerHandler for Recorder {
    async fn call(&self, from: &Sender, call: Call, body: Bytes) -> Result<Bytes, PeerError> {
        self.tape.0.lock().push(Recorded::Call(from.clone(), call, body.clone()));
        self.inner.call(from, call, body).await
    }

    fn stream(&self, from: &Sender, lane: Lane, stream: PeerStream) -> Result<(), PeerError> {
        let (near, far) = PeerStream::pair();
        self.inner.stream(from, lane, far)?;
        let number = {
            let mut streams = self.streams.lock();
            *streams += 1;
            *streams
        };
        let (tape, from) = (self.tape.clone(), from.clone());
        let (mut incoming, mut answers) = (stream.rx, near.rx);
        tokio::spawn(async move {
            while let Some(m) = incoming.recv().await {
                tape.0.lock().push(Recorded::Frame(number, from.clone(), lane, m.clone()));
                if near.tx.send(m).await.is_err() {
                    return;
                }
            }
        });
        tokio::spawn(async move {
            while let Some(m) = answers.recv().await {
                if stream.tx.send(m).await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }
}

/// Plays a tape to a replica: calls one by one, each stream's frames in order.
/// The answers are counted, and what they are does not matter.
async fn play(tape: &Tape, handler: &Arc<dyn PeerHandler>) -> (usize, usize) {
    let mut streams: std::collections::BTreeMap<usize, PeerStream> = Default::default();
    let (mut calls, mut frames) = (0, 0);
    let recorded = tape.0.lock().clone();
    for r in recorded {
        match r {
            Recorded::Call(from, call, body) => {
                let _answer = handler.call(&from, call, body).await;
                calls += 1;
            }
            Recorded::Frame(_, _, Lane::Snapshot, _) => {}
            Recorded::Frame(number, from, lane, message) => {
                let stream = streams.entry(number).or_insert_with(|| {
                    let (near, far) = PeerStream::pair();
                    handler.stream(&from, lane, far).unwrap();
                    near
                });
                // A stream that the replica has ended takes no more.
                if stream.tx.send(message).await.is_ok() {
                    frames += 1;
                }
            }
        }
    }
    // Every stream has been heard to its end, or is silent.
    for stream in streams.values_mut() {
        while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(100), stream.rx.recv()).await {}
    }
    (calls, frames)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_leaders_frames_played_again_change_nothing() {
    let mut c = Cluster::of(3).await;
    // From now on all that comes in is recorded, on streams that are opened anew.
    let mut tapes = Vec::new();
    for id in 1..=3u64 {
        let inner = c.db(id).peer_handler();
        let tape = Tape::default();
        c.network.detach(id);
        c.network.attach(id, Arc::new(Recorder { inner, tape: tape.clone(), streams: Mutex::default() }));
        tapes.push((id, tape));
    }
    let old = c.leader().await;
    for n in 0..60 {
        c.put(old, &format!("k{}", n % 10), &format!("of the old leader {n}")).await;
    }
    let term = c.db(old).leader_watch().view().term;
    c.kill(old).await;
    let new = c.leader().await;
    for n in 0..60 {
        c.put(new, &format!("k{}", n % 10), &format!("of the new leader {n}")).await;
    }
    for id in c.nodes.keys() {
        c.db(*id).read_barrier().await.unwrap();
    }
    let (before, view) = (state(&c, new), c.db(new).leader_watch().view());
    assert!(view.term > term);
    let (mut calls, mut frames) = (0, 0);
    for (id, tape) in tapes.iter().filter(|(id, _)| *id != old) {
        let handler = c.db(*id).peer_handler();
        let of_old = |r: &Recorded| match r {
            Recorded::Call(from, ..) | Recorded::Frame(_, from, ..) => from.id == old,
        };
        let old_ones: Vec<_> = tape.0.lock().iter().filter(|r| of_old(r)).cloned().collect();
        let played = play(&Tape(Arc::new(Mutex::new(old_ones))), &handler).await;
        (calls, frames) = (calls + played.0, frames + played.1);
    }
    println!("calls={calls} frames={frames}");
    assert!(frames > 50, "the tape holds what the old leader sent: {frames}");
    // Nobody has moved, nothing was lost or came back, and writes go on under the same leader.
    for id in c.nodes.keys() {
        c.db(*id).read_barrier().await.unwrap();
        assert_eq!(state(&c, *id), before, "replica {id}");
        let now = c.db(*id).leader_watch().view();
        assert_eq!((now.term, now.leader), (view.term, view.leader), "replica {id}");
    }
    let done = c.db(new).commit(put("after", "1")).await.unwrap();
    assert!(common::revision(&done) > before.iter().map(|s| s.3).max().unwrap());
    let chains: Vec<_> = {
        for id in c.nodes.keys() {
            c.db(*id).read_barrier().await.unwrap();
        }
        c.nodes.keys().map(|id| c.db(*id).mvcc().header().chain).collect()
    };
    assert!(chains.windows(2).all(|w| w[0] == w[1]), "the same history everywhere");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_that_are_too_large_or_of_too_many_operations_are_refused_on_every_replica() {
    use triarch_mvcc::{CommitError, Object, Op, Txn, TxnOutcome};
    let c = Cluster::of(3).await;
    let large = Op::Put(common::key("large"), Object::plain(vec![b'x'; 9 << 20]));
    let many = (0..20_000).map(|n| Op::Put(common::key(&format!("k{n}")), Object::plain("v"))).collect();
    let revision = c.db(1).read_barrier().await.unwrap();
    for (id, node) in &c.nodes {
        let refused = node.db.commit(Txn { ops: vec![large.clone()], ..Txn::default() }).await;
        assert!(matches!(refused, Err(CommitError::TooLarge { .. })), "replica {id}: {refused:?}");
        let txn = Txn { ops: Vec::clone(&many), ..Txn::default() };
        let done = node.db.commit(txn).await.map(|done| done.outcome);
        assert!(matches!(done, Ok(TxnOutcome::TooLarge) | Err(CommitError::TooLarge { .. })), "replica {id}: {done:?}");
    }
    assert_eq!(c.db(1).read_barrier().await.unwrap(), revision, "nothing of them was made");
    c.put(3, "small", "1").await;
}

/// Another replica at an address that one had which is gone; counts its introductions.
#[derive(Default)]
struct Successor(AtomicUsize);

#[async_trait::async_trait]
impl PeerHandler for Successor {
    async fn call(&self, from: &Sender, call: Call, _: Bytes) -> Result<Bytes, PeerError> {
        self.0.fetch_add(usize::from(call == Call::Introduce), Relaxed);
        Err(PeerError::Refused(format!("meant for replica {}, this is another one", from.to)))
    }

    fn stream(&self, _: &Sender, _: Lane, _: PeerStream) -> Result<(), PeerError> {
        Err(PeerError::Refused("this is another replica".into()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_is_not_named_for_ever_to_a_replica_that_was_removed_meanwhile() {
    let mut c = Cluster::of(4).await;
    c.put(1, "a", "1").await;
    c.kill(4).await;
    let leader = c.leader().await;
    if leader == 3 {
        c.db(3).transfer_leader(Some(1)).await.unwrap();
    }
    let leader = c.leader().await;
    c.db(leader).remove_replica(3).await.unwrap();
    c.kill(3).await;
    let successor = Arc::new(Successor::default());
    c.network.attach(3, successor.clone());
    c.start(4).await;
    c.db(4).ready().await;
    let asked = || successor.0.load(Relaxed);
    assert!(asked() > 0, "replica 4 knows replica 3 from its last life");
    tokio::time::sleep(Duration::from_millis(600)).await;
    let before = asked();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(asked(), before);
}
