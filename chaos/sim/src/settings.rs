//! What differs from seed to seed besides chance itself: timers, sizes, load.

use std::time::Duration;

use triarch_env::Env;
use triarch_raft::RaftConfig;

/// How much of Triarch a run has in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stack {
    /// Log, store, checkpoint and watches, at a heartbeat of 100 ms.
    Store,
    /// Registry, admission, controllers, scheduler and hollow nodes on it; some
    /// seeds at the timers of production.
    #[default]
    Whole,
}

/// Who has an older release at first. The first replica decides where the level begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Older {
    Nobody,
    First,
    All,
}

/// Drawn once per run.
#[derive(Clone, Debug)]
pub struct Settings {
    pub stack: Stack,
    /// Voters of the cluster.
    pub replicas: u64,
    pub heartbeat: Duration,
    pub election: (Duration, Duration),
    pub quorum_ack_max_age: Duration,
    pub window_events: u64,
    pub window_check: Duration,
    pub segment_bytes: u64,
    pub snapshot_page_bytes: usize,
    /// How long the log behind a snapshot is kept for who comes back for it.
    pub transfer_grace: Duration,
    /// In each lane between one fault and the next, on average: one upon another, or with time to recover.
    pub calm: Duration,
    /// Which of the replicas that the cluster is born with have an older release.
    pub older: Older,
    /// How long clients write and faults come.
    pub load: Duration,
    /// Between two requests of a client, on average: all of them together ask for
    /// at least 20 writes a second.
    pub think: Duration,
    /// Silence after which a node is not ready: as short as the faults, or longer than all of them.
    pub node_grace: Duration,
}

const MS: Duration = Duration::from_millis(1);

impl Settings {
    pub fn draw(env: &Env, stack: Stack) -> Settings {
        // The default timers, and slow ones under which timers decide more often.
        let quick = env.random_below(3) == 0 && stack == Stack::Whole;
        let (heartbeat, election, age) =
            if quick { (20 * MS, (100 * MS, 150 * MS), 500 * MS) } else { (100 * MS, (400 * MS, 600 * MS), 1500 * MS) };
        let replicas = match env.random_below(8) {
            0 => 1,
            1 | 2 => 5,
            _ => 3,
        };
        Settings {
            stack,
            replicas,
            heartbeat,
            election,
            quorum_ack_max_age: age,
            window_events: [60, 200, 1500][env.random_below(3) as usize],
            window_check: [200, 500, 1000][env.random_below(3) as usize] * MS,
            segment_bytes: 1 << (15 + env.random_below(4)),
            snapshot_page_bytes: 1 << (6 + env.random_below(12)),
            transfer_grace: Duration::from_secs([1, 5, 60][env.random_below(3) as usize]),
            calm: [700, 2000, 4000][env.random_below(3) as usize] * MS,
            older: [Older::Nobody, Older::First, Older::All, Older::All][env.random_below(4) as usize],
            load: Duration::from_secs(60),
            think: [120, 160, 200][env.random_below(3) as usize] * MS,
            node_grace: Duration::from_secs([3, 6, 40][env.random_below(3) as usize]),
        }
    }

    pub fn apply(&self, config: &mut RaftConfig) {
        config.timers.heartbeat = self.heartbeat;
        (config.timers.election_min, config.timers.election_max) = self.election;
        config.timers.quorum_ack_max_age = self.quorum_ack_max_age;
        config.window.events = self.window_events;
        config.window.check = self.window_check;
        config.limits.snapshot_page_bytes = self.snapshot_page_bytes;
        config.limits.transfer_grace = self.transfer_grace;
    }
}
