//! What is done to members while clients write.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use triarch_lab::etcd::Peers;

use crate::board::Board;

/// How long a paused member stays so, milliseconds.
const PAUSE: std::ops::Range<u64> = 200..1500;
/// Of load between two faults, milliseconds.
const BETWEEN: std::ops::Range<u64> = 300..1500;
/// Acknowledged writes before the next fault.
const ENOUGH: u64 = 300;
/// Acknowledged by then, or the system is given up.
const RECOVER: Duration = Duration::from_secs(60);
/// Between two looks.
const POLL: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL of one, started again at once.
    KillOne(usize),
    /// SIGKILL of all, started again at once.
    KillAll,
    /// SIGSTOP of one for some milliseconds.
    Pause(usize, u64),
}

/// The next fault of a seed.
pub fn choose(rng: &mut ChaCha8Rng, members: usize) -> Fault {
    let member = rng.random_range(0..members);
    match rng.random_range(0..10) {
        0..5 => Fault::KillOne(member),
        5..8 => Fault::KillAll,
        _ => Fault::Pause(member, rng.random_range(PAUSE)),
    }
}

/// Waits for load, and does it; ends when writes are acknowledged again.
///
/// # Errors
/// A member that cannot be started, or no acknowledged write any more.
pub async fn once(peers: &mut Peers, board: &Arc<Board>, rng: &mut ChaCha8Rng) -> anyhow::Result<Fault> {
    tokio::time::sleep(Duration::from_millis(rng.random_range(BETWEEN))).await;
    let members = peers.endpoints().len();
    let fault = choose(rng, members);
    match fault {
        Fault::KillOne(i) => {
            tokio::task::block_in_place(|| peers.kill(i))?;
            peers.restart(i)?;
        }
        Fault::KillAll => {
            for i in 0..members {
                tokio::task::block_in_place(|| peers.kill(i))?;
            }
            for i in 0..members {
                peers.restart(i)?;
            }
        }
        Fault::Pause(i, milliseconds) => {
            peers.pause(i);
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            peers.resume(i);
        }
    }
    let from = board.acked();
    let end = Instant::now() + RECOVER;
    while board.acked() < from + ENOUGH {
        if Instant::now() >= end {
            bail!("{} writes acknowledged in {RECOVER:?} after {fault:?}", board.acked() - from);
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_seed_gives_the_same_faults_twice_and_all_kinds_of_them() {
        let all = |seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            (0..60).map(|_| choose(&mut rng, 3)).collect::<Vec<_>>()
        };
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
        for kind in [
            |f: &Fault| matches!(f, Fault::KillOne(2)),
            |f: &Fault| *f == Fault::KillAll,
            |f: &Fault| matches!(f, Fault::Pause(0, _)),
        ] {
            assert!(all(1).iter().any(kind));
        }
    }
}
