//! What a cluster of replicas promises, on tokio with real logs.

mod common;

use std::time::Duration;

use common::{Cluster, put, revision};
use triarch_mvcc::{CommitError, Db};
use triarch_raft::{Blocking, Lane};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_replica_commits_and_reads_its_writes() {
    let c = Cluster::of(1).await;
    let a = c.put(1, "a", "1").await;
    let b = c.put(1, "b", "2").await;
    assert!(revision(&a) < revision(&b));
    assert_eq!(c.read(1, "a").as_deref(), Some("1"));
    assert!(c.db(1).read_barrier().await.unwrap() >= revision(&b));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_through_any_replica_are_read_there_and_after_a_barrier_everywhere() {
    let c = Cluster::of(3).await;
    let mut last = 0;
    for n in 0..30u64 {
        let via = n % 3 + 1;
        let name = format!("k{n}");
        let done = c.put(via, &name, &n.to_string()).await;
        assert!(revision(&done) > last, "revisions rise across the cluster");
        last = revision(&done);
        assert_eq!(c.read(via, &name), Some(n.to_string()), "its own writer reads it at once");
        let other = (n + 1) % 3 + 1;
        assert!(c.db(other).read_barrier().await.unwrap() >= last);
        assert_eq!(c.read(other, &name), Some(n.to_string()), "a barrier covers what was acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_answer_for_entries_and_not_for_the_news_of_what_is_committed() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let (asked, answered) =
        (|id| cluster.network.delivered(Lane::Log, leader, id), |id| cluster.network.delivered(Lane::Log, id, leader));
    let before: Vec<_> = others.iter().map(|id| (asked(*id), answered(*id))).collect();
    const PUTS: u64 = 40;
    for n in 0..PUTS {
        let at = revision(&cluster.db(leader).commit(put(&format!("k{n}"), "v")).await.unwrap());
        // Nobody asks for it: each follower learns from the news alone that it is committed.
        let known = async {
            while others.iter().any(|id| cluster.db(*id).mvcc().revision() < at) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), known).await.expect("followers apply it");
    }
    for (id, (asked_before, answered_before)) in others.iter().zip(before) {
        let (requests, answers) = (asked(*id) - asked_before, answered(*id) - answered_before);
        assert!(requests >= 2 * PUTS - 5, "replica {id}: entries and news, {requests}");
        assert!((PUTS - 1..PUTS + 10).contains(&answers), "replica {id}: {answers} answers to {requests} requests");
    }
    let (from, to) = (others[0], leader);
    let told = cluster.network.delivered(Lane::Forward, to, from);
    for n in 0..PUTS {
        cluster.db(from).commit(put(&format!("f{n}"), "v")).await.unwrap();
    }
    assert!(cluster.network.delivered(Lane::Forward, from, to) >= PUTS);
    assert_eq!(cluster.network.delivered(Lane::Forward, to, from), told, "a batch that is committed has no answer");
}

/// Answers with its replica's id and the question while that leads.
struct Named(std::sync::Weak<triarch_raft::RaftDb>);

#[async_trait::async_trait]
impl triarch_raft::Answers for Named {
    async fn answer(&self, question: bytes::Bytes) -> Option<bytes::Bytes> {
        let db = self.0.upgrade()?;
        db.leader_watch().leadership()?;
        Some([&[db.config().node_id as u8][..], &question].concat().into())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_to_the_leader_is_answered_by_it_from_any_replica_and_by_the_next_one_after_it() {
    let mut c = Cluster::of(3).await;
    for id in 1..=3 {
        c.db(id).answer_with(std::sync::Arc::new(Named(std::sync::Arc::downgrade(c.db(id)))));
    }
    let leader = c.leader().await;
    for id in 1..=3 {
        let answer = c.db(id).ask_leader("why".into()).await.unwrap();
        assert_eq!(answer, [&[leader as u8][..], b"why"].concat());
    }
    let large = c.db(1).ask_leader(vec![0; 1 << 20].into()).await;
    assert!(matches!(large, Err(CommitError::TooLarge { .. })));
    c.kill(leader).await;
    let other = (1..=3).find(|id| *id != leader).unwrap();
    let answer = c.db(other).ask_leader("and now".into()).await.unwrap();
    assert!(answer[0] as u64 != leader && &answer[1..] == b"and now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_can_be_asked_at_any_time_and_holds_up_nobody() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let db = cluster.db(leader);
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let askers: Vec<_> = (0..4)
        .map(|_| {
            let (db, asked) = (db.clone(), asked.clone());
            tokio::spawn(async move {
                while asked.load(std::sync::atomic::Ordering::Relaxed) {
                    assert_eq!(db.status().await.replicas.len(), 3);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let writes = async {
        for n in 0..300 {
            db.commit(put(&format!("k{n}"), "v")).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), writes).await.expect("writes go on");
    asked.store(false, std::sync::atomic::Ordering::Relaxed);
    for asker in askers {
        tokio::time::timeout(Duration::from_secs(60), asker).await.expect("and so do the answers").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_share_batches_and_all_get_their_own_outcome() {
    let c = Cluster::of(3).await;
    let mut tasks = Vec::new();
    for w in 0..32u64 {
        let db = c.db(w % 3 + 1).clone();
        tasks.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            for n in 0..20 {
                seen.push(revision(&db.commit(put(&format!("w{w}-{n}"), "x")).await.unwrap()));
            }
            seen
        }));
    }
    let mut all = Vec::new();
    for t in tasks {
        let seen = t.await.unwrap();
        assert!(seen.is_sorted());
        all.extend(seen);
    }
    let n = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), n, "every write has a revision of its own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_go_on_when_the_leader_is_killed_and_it_catches_up_when_it_is_back() {
    let mut c = Cluster::of(3).await;
    c.put(1, "before", "1").await;
    for round in 0..3 {
        let old = c.leader().await;
        c.kill(old).await;
        let via = *c.nodes.keys().next().unwrap();
        let name = format!("during{round}");
        c.put(via, &name, "2").await;
        c.start(old).await;
        tokio::time::timeout(Duration::from_secs(10), c.db(old).ready()).await.expect("it catches up");
        c.db(old).read_barrier().await.unwrap();
        assert_eq!(c.read(old, "before").as_deref(), Some("1"));
        assert_eq!(c.read(old, &name).as_deref(), Some("2"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_without_a_quorum_says_so_and_never_answers() {
    let mut c = Cluster::empty(|config| {
        config.timers.no_leader_hold = Duration::from_millis(600);
        config.timers.commit_deadline = Duration::from_millis(900);
    });
    c.boot(3).await;
    let leader = c.leader().await;
    let other = *c.nodes.keys().find(|id| **id != leader).unwrap();
    for id in 1..=3 {
        if id != other {
            c.network.cut(other, id);
        }
    }
    // It lost its leader, but the others kept theirs.
    let error = c.db(other).commit(put("lost", "1")).await.unwrap_err();
    assert!(matches!(error, CommitError::NoLeader(_) | CommitError::Unknown(_)), "{error:?}");
    assert!(c.db(other).read_barrier().await.is_err());
    c.put(leader, "kept", "1").await;
    c.network.mend();
    tokio::time::timeout(Duration::from_secs(10), async { while c.db(other).read_barrier().await.is_err() {} })
        .await
        .unwrap();
    assert_eq!(c.read(other, "kept").as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_comes_back_while_the_others_write_their_checkpoints() {
    let mut c = Cluster::of(3).await;
    c.put(1, "a", "1").await;
    c.kill(3).await;
    let mut written = Vec::new();
    for node in c.nodes.values() {
        let Blocking::Thread(jobs) = &node.checkpointing else { panic!("a thread of its own") };
        let (done, until) = std::sync::mpsc::channel::<()>();
        // Until `done` is dropped, which is the error.
        jobs.send(Box::new(move || assert!(until.recv().is_err()))).unwrap();
        written.push(done);
    }
    c.start(3).await;
    let ready = tokio::time::timeout(Duration::from_secs(10), c.db(3).ready()).await;
    drop(written);
    assert!(ready.is_ok(), "it waits for the checkpoints of others");
}
