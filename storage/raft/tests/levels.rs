//! Replicas of two releases in one cluster: when its feature level rises, what
//! is refused until then, and who is refused from then on.

mod common;

use std::time::Duration;

use common::{Cluster, replica};
use triarch_mvcc::levels::{FIRST, LATEST};
use triarch_mvcc::{CommitError, Db, Guard, Op, Txn, lease_key, lease_object};
use triarch_raft::{MembershipError, NodeId, RaftConfig, StartError};

const SOON: Duration = Duration::from_secs(20);

fn older(config: &mut RaftConfig) {
    config.supports = FIRST;
}

fn newer(_: &mut RaftConfig) {}

fn grant(id: i64) -> Txn {
    let ops = vec![Op::Put(lease_key(id), lease_object(60))];
    Txn { guards: vec![Guard::Absent(lease_key(id))], ops, epoch: None }
}

/// Restarts a replica with another release.
async fn install(c: &mut Cluster, id: NodeId, release: fn(&mut RaftConfig)) {
    c.kill(id).await;
    c.adjust = release;
    c.start(id).await;
}

async fn raised(c: &Cluster) {
    let all = async {
        while c.nodes.values().any(|n| n.db.mvcc().feature_level() < LATEST) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, all).await.expect("the level rises");
}

/// Stops by itself, with both levels in the reason.
async fn too_old(c: &Cluster, id: NodeId) {
    let why = tokio::time::timeout(SOON, c.db(id).stopped()).await.expect("it stops");
    assert!(c.db(id).is_refused(), "{why}");
    assert!(names_both(&why), "{why}");
}

/// Both levels, and the way out.
fn names_both(why: &str) -> bool {
    why.contains(&format!("at feature level {LATEST}, and this release supports levels up to {FIRST} only: install"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_born_at_the_level_of_its_first_replica() {
    let c = Cluster::of(1).await;
    assert_eq!(c.db(1).mvcc().feature_level(), LATEST);
    c.db(1).commit(grant(1)).await.unwrap();
    let mut c = Cluster::empty(older);
    c.boot(1).await;
    assert_eq!(c.db(1).mvcc().feature_level(), FIRST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_level_rises_after_the_last_replica_was_upgraded_and_what_it_brings_is_refused_until_then() {
    let mut c = Cluster::empty(older);
    c.boot(3).await;
    let refused = Err(CommitError::FeatureLevel { needs: LATEST, level: FIRST });
    for id in [2, 1] {
        install(&mut c, id, newer).await;
        tokio::time::timeout(SOON, c.db(id).ready()).await.unwrap();
        // Two rounds of questions, by whoever leads.
        c.db(id).transfer_leader(Some(id)).await.ok();
        tokio::time::sleep(Duration::from_millis(2500)).await;
        for via in 1..=3 {
            assert_eq!(c.db(via).commit(grant(1)).await, refused);
            assert_eq!(c.db(via).mvcc().feature_level(), FIRST);
        }
    }
    let status = c.db(1).status().await;
    let supports: Vec<u64> = status.replicas.iter().map(|r| r.supports).collect();
    assert_eq!(supports, [LATEST, LATEST, FIRST]);
    // One that is away has not said anything: nobody is left out.
    c.kill(3).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(c.db(1).mvcc().feature_level(), FIRST);
    c.start(3).await;
    raised(&c).await;
    c.db(3).commit(grant(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_release_is_refused_when_it_joins_and_when_it_comes_back() {
    let mut c = Cluster::of(3).await;
    let leader = c.leader().await;
    for supports in [FIRST, 0] {
        let error = c.db(leader).add_replica(replica(9), supports).await.unwrap_err();
        assert!(matches!(error, MembershipError::TooOld(_)), "{error}");
    }
    assert_eq!(c.db(leader).members().len(), 3);
    c.kill(3).await;
    c.adjust = older;
    // The others tell it, or its own log does, or its own log while it starts.
    match c.try_start(3).await {
        Ok(()) => {
            too_old(&c, 3).await;
            c.kill(3).await;
        }
        Err(StartError::Refused(why)) => assert!(names_both(&why), "{why}"),
        Err(e) => panic!("{e}"),
    }
    // It has lost nothing by that.
    c.adjust = newer;
    c.start(3).await;
    tokio::time::timeout(SOON, c.db(3).ready()).await.unwrap();
    c.put(3, "a", "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_release_does_not_start_on_a_checkpoint_of_a_higher_level() {
    let small = |config: &mut RaftConfig| {
        config.window.events = 50;
        config.window.check = Duration::from_millis(50);
    };
    let mut c = Cluster::empty(small);
    c.boot(1).await;
    for n in 0..400 {
        c.put(1, "k", &format!("value {n}")).await;
    }
    let purged = async {
        while c.nodes[&1].wal.state().purged.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, purged).await.expect("the log is purged behind a checkpoint");
    c.kill(1).await;
    c.adjust = older;
    let error = c.try_start(1).await.unwrap_err();
    assert!(matches!(&error, StartError::Refused(why) if names_both(why)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_to_the_entry_that_raises_the_level_above_its_own_stops_and_does_not_apply_it() {
    let mut c = Cluster::empty(older);
    c.boot(3).await;
    let leader = c.leader().await;
    let epoch = c.db(leader).leader_watch().leadership().unwrap();
    // As a leader would that had asked nobody.
    let raise = c.db(leader).mvcc().raise(LATEST, epoch);
    let before = c.db(leader).mvcc().applied().index;
    let _ = c.db(leader).commit(raise).await;
    too_old(&c, leader).await;
    for node in c.nodes.values() {
        assert_eq!(node.db.mvcc().feature_level(), FIRST);
        assert!(node.db.mvcc().applied().index <= before + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raise_of_a_leadership_that_has_ended_stops_nobody() {
    let mut c = Cluster::empty(older);
    c.boot(3).await;
    let leader = c.leader().await;
    let epoch = c.db(leader).leader_watch().leadership().unwrap();
    let raise = c.db(leader).mvcc().raise(LATEST, epoch);
    c.db(leader).transfer_leader(None).await.unwrap();
    assert_eq!(c.db(leader).commit(raise).await, Err(CommitError::Fenced(epoch)));
    for id in 1..=3 {
        c.put(id, "a", &format!("{id}")).await;
        assert_eq!(c.db(id).mvcc().feature_level(), FIRST);
    }
}
