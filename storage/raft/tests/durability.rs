//! What survives: restarts from checkpoint and log, snapshots to newcomers,
//! identities, and the fencing of a leader's writes.

mod common;

use std::time::Duration;

use common::{Cluster, put, replica, revision};
use triarch_mvcc::{CommitError, Db, Epoch, Prefix, Revision};
use triarch_raft::{RaftConfig, StartError};

/// A window so small that checkpoints follow closely and the log is purged.
fn small_window(config: &mut RaftConfig) {
    config.window.events = 50;
    config.window.check = Duration::from_millis(50);
    config.limits.snapshot_page_bytes = 2048;
    // On a slow disk newcomers are brought up by snapshots: the log must not wait long for them.
    config.limits.transfer_grace = Duration::from_secs(2);
}

async fn fill(c: &Cluster, via: u64, from: u64, to: u64) -> Revision {
    let mut last = 0;
    for n in from..to {
        last = revision(&c.put(via, &format!("k{:03}", n % 300), &format!("value {n}")).await);
    }
    last
}

/// Waits until the log of `id` begins after entry `index`.
async fn purged(c: &Cluster, id: u64, index: u64) {
    for _ in 0..400 {
        if c.nodes[&id].wal.state().purged.is_some_and(|p| p.index >= index) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the log of replica {id} was not purged: {:?}", c.nodes[&id].wal.state());
}

/// Waits until the history of `id` is within [`small_window`], so that nothing more is compacted.
async fn compacted(c: &Cluster, id: u64) -> Revision {
    for _ in 0..400 {
        let mvcc = c.db(id).mvcc().clone();
        if mvcc.window().compactions(50, usize::MAX, (0, 0)).is_empty() {
            return mvcc.compacted();
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the history of replica {id} was not compacted: {:?}", c.db(id).mvcc().window());
}

fn state(c: &Cluster, id: u64) -> Vec<(String, Vec<u8>, u64, u64)> {
    let list = triarch_mvcc::ListRequest::all(Prefix::resource("configmaps"));
    let items = c.db(id).mvcc().list(&list).unwrap().items;
    items
        .into_iter()
        .map(|s| (format!("{:?}", s.key), s.object.bytes.to_vec(), s.create_revision, s.mod_revision))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_from_checkpoint_and_log_has_the_same_state_history_and_refusals() {
    let mut c = Cluster::empty(small_window);
    c.boot(1).await;
    let last = fill(&c, 1, 0, 400).await;
    purged(&c, 1, 200).await;
    let (before, floor) = (state(&c, 1), compacted(&c, 1).await);
    let chain = c.db(1).mvcc().header().chain;
    let applied = c.db(1).mvcc().header().applied;
    assert!(floor > 0 && floor < last, "{floor} {last}");
    let mut watched = c.db(1).mvcc().watch(Prefix::resource("configmaps"), floor).unwrap();
    let events = watched.try_next(1000).unwrap();
    c.kill(1).await;
    c.start(1).await;
    c.db(1).ready().await;
    assert_eq!(state(&c, 1), before);
    assert!(c.db(1).mvcc().header().applied > applied, "the new leadership's own entry came on top");
    assert_ne!(chain, [0; 32]);
    assert_eq!(c.db(1).mvcc().revision(), last);
    // Watchers go on where they were, with the same previous values, and what was gone is still gone.
    let mut watched = c.db(1).mvcc().watch(Prefix::resource("configmaps"), floor).unwrap();
    assert_eq!(watched.try_next(1000).unwrap(), events);
    assert!(c.db(1).mvcc().watch(Prefix::resource("configmaps"), floor - 1).is_err());
    fill(&c, 1, 400, 420).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_gets_the_checkpoint_and_then_the_log() {
    let mut c = Cluster::empty(small_window);
    c.boot(1).await;
    fill(&c, 1, 0, 500).await;
    purged(&c, 1, 200).await;
    let id = c.db(1).add_replica(replica(2), triarch_mvcc::levels::LATEST).await.unwrap();
    assert_eq!(
        c.db(1).add_replica(replica(2), triarch_mvcc::levels::LATEST).await.unwrap(),
        id,
        "asking again changes nothing"
    );
    c.start(id).await;
    c.promote(id).await;
    c.db(id).read_barrier().await.unwrap();
    assert_eq!(state(&c, id), state(&c, 1));
    assert_eq!(c.db(id).mvcc().header().chain, c.db(1).mvcc().header().chain, "the same history, byte for byte");
    assert!(c.db(id).counters().snapshots_installed.load(std::sync::atomic::Ordering::Relaxed) >= 1);
    // It survives its own restart.
    let before = state(&c, id);
    c.kill(id).await;
    c.start(id).await;
    tokio::time::timeout(Duration::from_secs(20), c.db(id).ready()).await.unwrap();
    assert_eq!(state(&c, id), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_that_asks_twice_at_once_is_given_one_id() {
    let c = Cluster::of(1).await;
    let db = c.db(1);
    let (a, b, again) = tokio::join!(
        db.add_replica(replica(2), triarch_mvcc::levels::LATEST),
        db.add_replica(replica(2), triarch_mvcc::levels::LATEST),
        db.add_replica(replica(2), triarch_mvcc::levels::LATEST)
    );
    assert_eq!([a.unwrap(), b.unwrap(), again.unwrap()], [2, 2, 2]);
    assert_eq!(db.add_replica(replica(3), triarch_mvcc::levels::LATEST).await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_away_for_long_is_brought_up_by_a_snapshot() {
    let mut c = Cluster::empty(small_window);
    c.boot(3).await;
    fill(&c, 1, 0, 20).await;
    c.kill(3).await;
    let via = c.leader().await;
    fill(&c, via, 20, 600).await;
    let behind = c.nodes[&via].wal.state().last.unwrap().index - 200;
    purged(&c, via, behind).await;
    c.start(3).await;
    tokio::time::timeout(Duration::from_secs(20), c.db(3).ready()).await.unwrap();
    c.db(3).read_barrier().await.unwrap();
    assert_eq!(state(&c, 3), state(&c, via));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_checkpoint_is_fetched_from_a_peer_before_the_replica_starts() {
    let mut c = Cluster::empty(small_window);
    c.boot(3).await;
    let leader = c.leader().await;
    fill(&c, leader, 0, 500).await;
    let victim = *c.nodes.keys().find(|id| **id != leader).unwrap();
    purged(&c, victim, 200).await;
    c.kill(victim).await;
    std::fs::remove_dir_all(c.path(victim).join("checkpoint")).unwrap();
    c.start(victim).await;
    tokio::time::timeout(Duration::from_secs(20), c.db(victim).ready()).await.unwrap();
    c.db(victim).read_barrier().await.unwrap();
    assert_eq!(state(&c, victim), state(&c, leader));
}

/// Everything in a directory, to another place.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (entry, to) = (entry.unwrap(), to.to_path_buf());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_of_a_data_directory_is_refused_and_the_directory_itself_is_not() {
    let mut c = Cluster::of(3).await;
    c.put(1, "a", "1").await;
    c.kill(3).await;
    let (now, old) = (c.path(3), c.dir.path().join("old"));
    copy(&now, &old);
    c.start(3).await;
    let own = c.db(3).starts().own();
    while [1, 2].iter().any(|id| c.db(*id).starts().seen(3) < own) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    c.put(1, "a", "2").await;
    c.kill(3).await;
    let aside = c.dir.path().join("aside");
    std::fs::rename(&now, &aside).unwrap();
    std::fs::rename(&old, &now).unwrap();
    c.start(3).await;
    let why = tokio::time::timeout(Duration::from_secs(20), c.db(3).stopped()).await.expect("it stops");
    assert!(c.db(3).is_refused(), "{why}");
    assert!(why.starts_with("this data directory is older than the one that replica 3 last ran with"), "{why}");
    c.kill(3).await;
    std::fs::remove_dir_all(&now).unwrap();
    std::fs::rename(&aside, &now).unwrap();
    c.start(3).await;
    tokio::time::timeout(Duration::from_secs(20), c.db(3).ready()).await.expect("the newer one takes part");
    assert_eq!(c.read(3, "a").as_deref(), Some("2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_not_introduced_neither_votes_nor_takes_entries_nor_asks_for_anything() {
    use triarch_raft::{Call, Lane, PeerError, PeerStream, Sender};
    let mut c = Cluster::of(3).await;
    c.put(1, "a", "1").await;
    c.kill(3).await;
    c.put(1, "a", "2").await;
    // What it says is not heard, and what the others say to it is.
    [1, 2].iter().for_each(|to| c.network.hold(3, *to));
    c.start(3).await;
    let promised = |c: &Cluster| (c.nodes[&3].wal.state().vote, c.nodes[&3].wal.state().last);
    let said = |c: &Cluster| Lane::ALL.map(|lane| [1, 2].map(|to| c.network.delivered(lane, 3, to)));
    let (before, spoken, handler) = (promised(&c), said(&c), c.db(3).peer_handler());
    let sender = Sender { cluster_id: "test".into(), id: 1, incarnation: 1000, to: 3 };
    let not_yet = |e: PeerError| assert_eq!(e.to_string(), "cannot reach replica 3: not introduced yet");
    for _ in 0..20 {
        for call in [Call::Vote, Call::TransferLeader, Call::ReadIndex, Call::LeaderLost, Call::Ask] {
            not_yet(handler.call(&sender, call, Default::default()).await.unwrap_err());
        }
        for lane in Lane::ALL {
            not_yet(handler.stream(&sender, lane, PeerStream::pair().0).unwrap_err());
        }
        // Longer in all than several elections take.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(promised(&c), before);
    assert_eq!(said(&c), spoken);
    [1, 2].iter().for_each(|to| c.network.release(3, *to));
    tokio::time::timeout(Duration::from_secs(20), c.db(3).ready()).await.expect("it takes part once it is heard");
    assert_eq!(c.read(3, "a").as_deref(), Some("2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_replica_is_refused_under_its_old_id() {
    let mut c = Cluster::of(3).await;
    c.put(1, "a", "1").await;
    let leader = c.leader().await;
    let victim = *c.nodes.keys().find(|id| **id != leader).unwrap();
    c.kill(victim).await;
    // Its log is gone, its identity is not.
    std::fs::remove_dir_all(c.path(victim).join("wal")).unwrap();
    let error = c.try_start(victim).await.unwrap_err();
    assert!(matches!(error, StartError::Wiped(id) if id == victim), "{error}");
    c.put(leader, "b", "2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_of_another_cluster_or_directory_are_refused_by_name() {
    use triarch_raft::{Call, PeerError, Sender};
    let c = Cluster::of(3).await;
    let handler = c.db(1).peer_handler();
    let good = Sender { cluster_id: "test".into(), id: 2, incarnation: 2000, to: 1 };
    let refused = |e: Result<_, PeerError>| match e.unwrap_err() {
        PeerError::Refused(why) => why,
        other => panic!("{other:?}"),
    };
    handler.call(&good, Call::Status, Default::default()).await.unwrap();
    let other = Sender { cluster_id: "other".into(), ..good.clone() };
    let why = refused(handler.call(&other, Call::Status, Default::default()).await);
    assert!(why.contains("of cluster other, this one is of cluster test"), "{why}");
    let wiped = Sender { incarnation: 9, ..good.clone() };
    let why = refused(handler.call(&wiped, Call::Status, Default::default()).await);
    assert!(why.contains("a wiped replica cannot come back under its old id"), "{why}");
    let lost = Sender { to: 7, ..good };
    assert!(refused(handler.call(&lost, Call::Status, Default::default()).await).contains("meant for replica 7"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaders_write_is_applied_only_under_its_own_epoch() {
    let mut c = Cluster::of(3).await;
    let leader = c.leader().await;
    let epoch = c.db(leader).leader_watch().leadership().unwrap();
    let mut txn = put("led", "1");
    txn.epoch = Some(epoch);
    c.db(leader).commit(txn.clone()).await.unwrap();
    txn.epoch = Some(Epoch { term: epoch.term - 1, node: leader });
    assert_eq!(c.db(leader).commit(txn.clone()).await, Err(CommitError::Fenced(txn.epoch.unwrap())));
    // The next leader, whoever it is, does not make its predecessor's writes.
    let view = c.db(leader).transfer_leader(None).await.unwrap();
    assert_ne!(view.leader, Some(leader));
    txn.epoch = Some(epoch);
    assert_eq!(c.db(leader).commit(txn).await, Err(CommitError::Fenced(epoch)));
    assert_eq!(c.db(leader).leader_watch().leadership(), None);
    c.kill(leader).await;
    c.leader().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_ids_are_not_used_again_and_the_last_voter_stays() {
    let mut c = Cluster::of(3).await;
    let leader = c.leader().await;
    let victim = *c.nodes.keys().find(|id| **id != leader).unwrap();
    c.db(leader).remove_replica(victim).await.unwrap();
    c.kill(victim).await;
    let mut newcomer = replica(4);
    newcomer.name = format!("r{victim}");
    assert_eq!(c.db(leader).add_replica(newcomer, triarch_mvcc::levels::LATEST).await.unwrap(), 4);
    let status = c.db(leader).status().await;
    let ids: Vec<_> = status.replicas.iter().map(|r| (r.id, r.voter)).collect();
    assert_eq!(ids.len(), 3);
    assert!(!ids.iter().any(|(id, _)| *id == victim));
    assert!(ids.contains(&(4, false)));

    let single = Cluster::of(1).await;
    let error = single.db(1).remove_replica(1).await.unwrap_err().to_string();
    assert_eq!(error, "removing replica 1 would leave no voter");
}
