//! The same replicas on virtual time: one seed is one run, byte for byte.

mod machines;

use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::AsyncRuntime;
use triarch_mvcc::{CommitError, Db, Guard, Key, Object, Op, Txn, TxnOutcome};
use triarch_raft::sim::SimRuntime;

use crate::machines::{Sim, damage_checkpoint, openraft_now, put, replica, with_cluster};

fn run(seed: u64) -> (u64, Vec<[u8; 32]>, Vec<String>) {
    let mut runtime = SimRuntime::with_seed(seed);
    runtime.record_trace(true);
    let (revision, chains) = runtime.block_on(async {
        let mut sim = Sim::new(seed);
        let out = sim.run().await;
        for id in [1, 2, 3] {
            sim.crash(id);
        }
        out
    });
    let trace = runtime.take_trace();
    (revision, chains, trace)
}

#[test]
fn a_seed_gives_the_same_run_twice_down_to_every_poll() {
    let seed = 7;
    println!("seed {seed}");
    let (a, b) = (run(seed), run(seed));
    assert_eq!((a.0, &a.1), (b.0, &b.1));
    let differs = a.2.iter().zip(&b.2).position(|(x, y)| x != y);
    assert_eq!(differs, None, "{:?} {:?}", a.2[differs.unwrap_or(0)], b.2[differs.unwrap_or(0)]);
    assert_eq!(a.2.len(), b.2.len());
}

#[test]
fn acknowledged_writes_survive_crashes_of_the_leader_under_many_seeds() {
    for seed in 100..112 {
        println!("seed {seed}");
        run(seed);
    }
}

#[test]
fn a_retry_after_a_broken_link_is_applied_once_and_told_the_first_outcome() {
    for seed in 200..212 {
        with_cluster(seed, |sim| async move {
            let (mut made, mut unknown) = (0, 0);
            for n in 0..120u64 {
                let leader = sim.leader().await;
                let via = (1..=3).find(|id| *id != leader && (n + id) % 2 == 0).unwrap_or(leader % 3 + 1);
                let key = Key::new("configmaps", "d", &format!("once-{n}"));
                // A second application would meet its own first one here.
                let txn = Txn {
                    guards: vec![Guard::Absent(key.clone())],
                    ops: vec![Op::Put(key, Object::plain("x"))],
                    epoch: None,
                };
                let commit = sim.db(via).commit(txn);
                let cut = async {
                    SimRuntime::sleep(Duration::from_micros(n % 12 * 200)).await;
                    sim.network.cut(via, leader);
                    SimRuntime::sleep(Duration::from_millis(5)).await;
                    sim.network.mend();
                };
                match futures::join!(commit, cut).0 {
                    Ok(done) => {
                        assert!(matches!(done.outcome, TxnOutcome::Committed { .. }), "seed {seed} {n}: {done:?}");
                        made += 1;
                    }
                    Err(CommitError::Unknown(_)) => unknown += 1,
                    Err(e) => panic!("seed {seed} {n}: {e}"),
                }
            }
            let retried: u64 = (1..=3).map(|id| sim.db(id).counters().batch_retries.load(Ordering::Relaxed)).sum();
            assert!(made > 100 && retried > 20, "seed {seed}: made {made} unknown {unknown} retried {retried}");
        });
    }
}

#[test]
fn a_broken_connection_elects_the_next_leader_long_before_a_timer_would() {
    for seed in 300..312 {
        with_cluster(seed, |mut sim| async move {
            let leader = sim.leader().await;
            sim.db(leader).commit(put("a", "1")).await.unwrap();
            let other = leader % 3 + 1;
            let start = openraft_now();
            sim.crash(leader);
            sim.db(other).commit(put("b", "2")).await.unwrap();
            let gap = openraft_now() - start;
            // Virtual time: the election timers are 400 to 600 ms.
            assert!(gap < Duration::from_millis(150), "seed {seed}: {gap:?}");
            let agreed: u64 =
                sim.running.values().map(|(db, _)| db.counters().leader_lost_agreed.load(Ordering::Relaxed)).sum();
            assert!(agreed >= 1);
        });
    }
}

/// A change of voters goes over a configuration that needs a quorum of the old
/// voters and one of the new ones. A leader that is lost there must not leave
/// the cluster there.
#[test]
fn a_promotion_whose_leader_is_lost_between_its_two_steps_is_finished() {
    for (step, asked_again) in (0..40).flat_map(|step| [(step, true), (step, false)]) {
        let after = Duration::from_micros(250 * step);
        println!("{after:?}, asked again: {asked_again}");
        SimRuntime::with_seed(450).block_on(async {
            let mut sim = Sim::new(450);
            sim.start(1).await;
            sim.db(1).initialize().await.unwrap();
            sim.leader().await;
            for id in 2..=3 {
                sim.db(1).add_replica(replica(id), triarch_mvcc::levels::LATEST).await.unwrap();
                sim.start(id).await;
            }
            sim.db(1).promote(2).await.unwrap();
            let db = sim.db(1).clone();
            let asked = SimRuntime::spawn(async move { db.promote(3).await });
            SimRuntime::sleep(after).await;
            sim.crash(1);
            drop(asked);
            sim.start(1).await;
            let leader = sim.leader().await;
            SimRuntime::sleep(Duration::from_secs(2)).await;
            let begun = sim.db(leader).status().await.replicas.iter().any(|r| r.id == 3 && r.voter);
            // As a joining replica does until it is told that it is a voter.
            let mut done = begun && !asked_again;
            while !done {
                SimRuntime::sleep(Duration::from_millis(50)).await;
                let leader = sim.leader().await;
                done = sim.db(leader).promote(3).await.is_ok();
            }
            for id in 1..=3 {
                sim.db(id).read_barrier().await.unwrap();
            }
            for gone in 1..=2 {
                sim.crash(gone);
                let mut written = sim.db(3).commit(put("a", "1")).await;
                for _ in 0..5 {
                    if written.is_ok() {
                        break;
                    }
                    // The first may have gone to the leader that was just lost.
                    written = sim.db(3).commit(put("a", "1")).await;
                }
                assert!(written.is_ok(), "two of three voters are a quorum without replica {gone}: {written:?}");
                sim.start(gone).await;
                sim.db(gone).ready().await;
            }
        });
    }
}

#[test]
fn an_isolated_leader_stops_acting_and_its_readers_are_not_answered() {
    with_cluster(400, |sim| async move {
        let leader = sim.leader().await;
        for id in (1..=3).filter(|id| *id != leader) {
            sim.network.cut(leader, id);
        }
        let db = sim.db(leader).clone();
        db.leader_watch().await_leadership_change(db.leader_watch().leadership()).await;
        assert_eq!(db.leader_watch().leadership(), None);
        assert!(matches!(db.read_barrier().await, Err(CommitError::NoLeader(_))));
        assert!(matches!(db.commit(put("a", "1")).await, Err(CommitError::Unknown(_) | CommitError::NoLeader(_))));
        let next = sim.leader().await;
        assert_ne!(next, leader);
        sim.db(next).commit(put("a", "2")).await.unwrap();
        sim.network.mend();
        db.read_barrier().await.unwrap();
        let found = db.mvcc().get(&Key::new("configmaps", "d", "a")).unwrap();
        assert_eq!(found.object.bytes, "2", "the write that had no quorum never happened");
    });
}

#[test]
fn a_follower_that_loses_its_connection_to_a_leader_that_lives_changes_nothing() {
    for seed in 700..712 {
        with_cluster(seed, |sim| async move {
            let leader = sim.leader().await;
            let follower = leader % 3 + 1;
            let before = sim.db(leader).leader_watch().view();
            sim.db(leader).commit(put("a", "1")).await.unwrap();
            for round in 0..5 {
                sim.network.cut(leader, follower);
                SimRuntime::sleep(Duration::from_millis(60 * round)).await;
                sim.network.mend();
                // Through the replica that raised the alarm as well.
                sim.db(follower).commit(put("a", &round.to_string())).await.unwrap();
            }
            assert_eq!(sim.db(leader).leader_watch().view(), before, "seed {seed}: the same leader in the same term");
            let sum = |of: fn(&triarch_raft::Counters) -> &std::sync::atomic::AtomicU64| {
                (1..=3).map(|id| of(sim.db(id).counters()).load(Ordering::Relaxed)).sum::<u64>()
            };
            assert!(sum(|c| &c.leader_lost_seen) > 0, "seed {seed}: the alarm was raised");
            assert_eq!(sum(|c| &c.leader_lost_agreed), 0, "seed {seed}: and nobody agreed");
            assert_eq!(sum(|c| &c.failover_elections), 0, "seed {seed}");
        });
    }
}

#[test]
fn disks_that_stand_still_take_the_leadership_from_nobody() {
    for seed in 720..726 {
        with_cluster(seed, |sim| async move {
            let leader = sim.leader().await;
            let before = sim.db(leader).leader_watch().view();
            // The disks are shared, or their host is busy: everybody's stand still at once,
            // for several times the election timeout.
            sim.sync.store(3_000_000, Ordering::Relaxed);
            let (db, begun) = (sim.db(leader).clone(), openraft_now());
            let written = SimRuntime::spawn(async move { db.commit(put("a", "1")).await });
            SimRuntime::sleep(Duration::from_millis(500)).await;
            sim.sync.store(800, Ordering::Relaxed);
            written.await.unwrap().unwrap();
            assert!(openraft_now() - begun >= Duration::from_secs(3), "seed {seed}: the disks did stand still");
            sim.db(leader % 3 + 1).commit(put("b", "2")).await.unwrap();
            for id in 1..=3 {
                let view = sim.db(id).leader_watch().view();
                assert_eq!((view.term, view.leader), (before.term, before.leader), "seed {seed}: replica {id}");
            }
        });
    }
}

#[test]
fn a_snapshot_transfer_that_breaks_goes_on_where_it_was() {
    let (whole, broken) = (snapshot_pages(false), snapshot_pages(true));
    // The page under way at the break may come again, no other.
    assert!(broken <= whole + 1 && whole >= 20, "{broken} pages with a break in the middle, {whole} without");
}

/// Brings a replica up by a snapshot; returns how many pages it was sent.
fn snapshot_pages(breaks: bool) -> u64 {
    let seed = 800;
    SimRuntime::with_seed(seed).block_on(async {
        let mut sim = Sim::new(seed);
        sim.adjust = |_, config| config.limits.snapshot_page_bytes = 256;
        sim.boot().await;
        let leader = sim.leader().await;
        let victim = leader % 3 + 1;
        let end = sim.logs[&victim].state().last.map_or(0, |l| l.index);
        sim.crash(victim);
        let mut n = 0;
        while sim.logs[&leader].state().purged.is_none_or(|p| p.index <= end + 100) {
            sim.db(leader).commit(put(&format!("k{}", n % 300), &n.to_string())).await.unwrap();
            n += 1;
        }
        sim.network.set_delay(Duration::from_millis(1));
        sim.start(victim).await;
        let counted = |sim: &Sim| {
            let c = sim.db(victim).counters();
            [&c.snapshot_pages_received, &c.snapshots_resumed, &c.snapshots_installed]
                .map(|c| c.load(Ordering::Relaxed))
        };
        while counted(&sim)[0] < 8 {
            SimRuntime::sleep(Duration::from_millis(1)).await;
        }
        if breaks {
            sim.network.cut(leader, victim);
            SimRuntime::sleep(Duration::from_millis(5)).await;
            assert_eq!(counted(&sim)[1..], [0, 0], "it broke in the middle");
            sim.network.mend();
        }
        sim.db(victim).ready().await;
        let [pages, resumed, installed] = counted(&sim);
        assert_eq!((resumed, installed), (u64::from(breaks), 1));
        sim.db(victim).read_barrier().await.unwrap();
        for n in 0..300 {
            let key = Key::new("configmaps", "d", &format!("k{n}"));
            let of = |id| sim.db(id).mvcc().get(&key).map(|s| (s.mod_revision, s.object.bytes));
            assert_eq!(of(victim), of(leader));
        }
        pages
    })
}

/// It led, was cut off with entries that nobody else has, and lost its
/// checkpoint: what it fetches ends among those entries.
#[test]
fn a_fetched_checkpoint_that_refutes_the_end_of_the_log_replaces_it() {
    let mut met = 0;
    for seed in 900..912 {
        println!("seed {seed}");
        met += SimRuntime::with_seed(seed).block_on(async {
            let mut sim = Sim::new(seed);
            sim.adjust = |_, config| {
                config.window.check = Duration::from_millis(10);
                config.window.events = 4;
            };
            sim.boot().await;
            let old = sim.leader().await;
            for n in 0..100 {
                sim.db(old).commit(put(&format!("k{}", n % 20), &n.to_string())).await.unwrap();
                SimRuntime::sleep(Duration::from_millis(1)).await;
            }
            let others: Vec<u64> = (1..=3).filter(|id| *id != old).collect();
            others.iter().for_each(|id| sim.network.cut(old, *id));
            let agreed = sim.logs[&old].state().last.map_or(0, |l| l.index);
            let db = sim.db(old).clone();
            for n in 0..3 {
                let _ = futures::poll!(std::pin::pin!(db.commit(put(&format!("alone {n}"), "x"))));
                SimRuntime::sleep(Duration::from_millis(5)).await;
            }
            drop(db);
            let last = sim.logs[&old].state().last.map_or(0, |l| l.index);
            let next = loop {
                let leads = |id: &&u64| sim.db(**id).leader_watch().leadership().is_some();
                match others.iter().find(leads) {
                    Some(id) => break *id,
                    None => SimRuntime::sleep(Duration::from_millis(5)).await,
                }
            };
            let reaches = |sim: &Sim| others.iter().filter_map(|id| sim.logs[id].state().purged).map(|p| p.index).max();
            let mut n = 0;
            while reaches(&sim).is_none_or(|at| at <= agreed) {
                sim.db(next).commit(put(&format!("k{}", n % 20), &n.to_string())).await.unwrap();
                SimRuntime::sleep(Duration::from_millis(3)).await;
                n += 1;
            }
            sim.crash(old);
            damage_checkpoint(&sim.machines[&old]);
            let refuted = reaches(&sim).is_some_and(|at| at > agreed && at <= last);
            sim.network.mend();
            sim.start(old).await;
            sim.db(old).ready().await;
            sim.db(old).read_barrier().await.unwrap();
            assert_eq!(sim.db(old).mvcc().header().chain, sim.db(next).mvcc().header().chain, "seed {seed}");
            u64::from(refuted)
        });
    }
    assert!(met >= 3, "the checkpoint ended among such entries in {met} seeds only");
}

/// A leader whose connections are silent has answers under way that its peers
/// gave before they chose another one. Those confirm nothing that was asked later.
#[test]
fn a_silenced_leaders_reader_is_not_answered_because_old_acknowledgements_arrive() {
    for seed in 500..524 {
        with_cluster(seed, |sim| async move {
            let leader = sim.leader().await;
            let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
            let db = sim.db(leader).clone();
            let entries = async {
                // One entry after another is on its way, and none is acknowledged any more.
                others.iter().for_each(|id| sim.network.hold(*id, leader));
                for n in 0..3 {
                    let _ = futures::poll!(std::pin::pin!(db.commit(put(&format!("in flight {n}"), "x"))));
                    SimRuntime::sleep(Duration::from_millis(5)).await;
                }
                others.iter().for_each(|id| sim.network.hold(leader, *id));
            };
            entries.await;
            let next = loop {
                let leads = |id: &&u64| sim.db(**id).leader_watch().leadership().is_some();
                if let Some(id) = others.iter().find(leads) {
                    break *id;
                }
                SimRuntime::sleep(Duration::from_millis(5)).await;
            };
            let newer = sim.db(next).commit(put("a", "newer")).await.unwrap().revision;
            let read = async {
                let at = db.read_barrier().await;
                assert!(at.clone().unwrap_or(newer) >= newer, "seed {seed}: read at {at:?}, {newer} was acknowledged");
            };
            let old_answers = async {
                SimRuntime::sleep(Duration::from_millis(20)).await;
                for id in &others {
                    sim.network.release(*id, leader);
                    SimRuntime::sleep(Duration::from_millis(5)).await;
                }
                SimRuntime::sleep(Duration::from_millis(100)).await;
                others.iter().for_each(|id| sim.network.release(leader, *id));
            };
            futures::join!(read, old_answers);
        });
    }
}

/// The peers' checkpoints are behind the purged log of the one that lost its
/// own when it asks first, and reach it a little later.
#[test]
fn a_lost_checkpoint_is_fetched_from_a_peer_that_reaches_far_enough_only_later() {
    let seed = 600;
    SimRuntime::with_seed(seed).block_on(async {
        let mut sim = Sim::new(seed);
        sim.adjust = |id, config| {
            config.window.check = Duration::from_millis([4700, 3100, 20][id as usize - 1]);
        };
        sim.boot().await;
        if sim.leader().await == 3 {
            sim.db(3).transfer_leader(Some(1)).await.unwrap();
        }
        let purged = |sim: &Sim, id: u64| sim.logs[&id].state().purged.map_or(0, |p| p.index);
        for n in 0.. {
            sim.db(1).commit(put(&format!("k{}", n % 50), &n.to_string())).await.unwrap();
            assert!(n < 20_000, "no peer was ever behind");
            if purged(&sim, 3) <= purged(&sim, 1).max(purged(&sim, 2)) {
                continue;
            }
            sim.crash(3);
            damage_checkpoint(&sim.machines[&3]);
            let began = openraft_now();
            sim.start(3).await;
            let took = openraft_now() - began;
            assert!(took < Duration::from_secs(7), "{took:?}, with peers that look every few seconds");
            sim.db(3).read_barrier().await.unwrap();
            // It was turned away at least once.
            if took > Duration::from_millis(400) {
                break;
            }
        }
    });
}
