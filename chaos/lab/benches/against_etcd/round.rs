//! One fresh cluster, and what was measured on it.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use triarch_lab::etcd::compare::Samples;
use triarch_lab::etcd::{Peers, System};
use triarch_lab::process::ProcessId;
use triarch_lab::usage;

use crate::arguments::Arguments;
use crate::client;

/// Load before anything is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// Time of the CPU.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    pub servers: Duration,
    pub client: Duration,
}

pub struct Round {
    pub peers: Peers,
    /// Of each measured part.
    pub part: Duration,
    /// To be loaded, where that is what is measured.
    pub keys: u64,
    pub quick: bool,
    samples: Samples,
}

impl Round {
    /// Starts a cluster and warms it up.
    pub async fn start(system: &System, dir: &Path, arguments: &Arguments) -> anyhow::Result<Round> {
        let peers = system.start(dir).await?;
        client::up(peers.endpoints()).await?;
        if arguments.only.is_some() {
            let pids: Vec<String> = peers.ids().iter().map(|id| id.pid.to_string()).collect();
            println!("{} runs as {}", system.name(), pids.join(","));
        }
        let (part, keys, quick) = (arguments.part, arguments.keys, arguments.quick);
        let round = Round { peers, part, keys, quick, samples: Samples::default() };
        client::Puts::new(64, 256).run(round.endpoints(), WARM_UP).await?;
        Ok(round)
    }

    pub fn endpoints(&self) -> &[String] {
        self.peers.endpoints()
    }

    pub fn add(&mut self, name: impl Into<String>, figure: f64) {
        self.samples.add(name, figure);
    }

    /// The newest of these figures.
    pub fn last(&self, name: &str) -> Option<f64> {
        self.samples.get(name).last().copied()
    }

    /// What the CPUs have done until now.
    pub fn cpu(&self) -> anyhow::Result<Cpu> {
        let mut servers = Duration::ZERO;
        for id in self.peers.ids() {
            servers += usage::cpu(id)?;
        }
        let own = ProcessId::of(std::process::id() as i32).context("this process")?;
        Ok(Cpu { servers, client: usage::cpu(own)? })
    }

    /// Adds what each of `n` requests or events has cost since `before`: all three
    /// processes together, and this one, which shares the machine with them.
    pub fn add_cpu(&mut self, name: &str, before: Cpu, n: u64) -> anyhow::Result<()> {
        let now = self.cpu()?;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / n.max(1) as f64;
        self.add(format!("{name}_cpu_us"), each(now.servers - before.servers));
        self.add(format!("{name}_client_cpu_us"), each(now.client - before.client));
        Ok(())
    }

    /// Proportional set size of all three processes, bytes.
    pub fn pss(&self) -> anyhow::Result<u64> {
        let mut all = 0;
        for id in self.peers.ids() {
            all += usage::pss(id)?;
        }
        Ok(all)
    }

    /// Ends the cluster.
    pub fn end(self) -> Samples {
        self.samples
    }
}
