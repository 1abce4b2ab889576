//! The etcd facade of three real replicas, used by etcd's own clients: `etcdctl`
//! (`clients/etcdctl.txt`), Go, Rust and Python programs (`clients/`), and the
//! Go client's locks and elections while leaders are killed.
//!
//! The tests share one cluster and run in order. What a machine lacks (go,
//! protoc, …) is said, and its test skipped. `ETCD=part,part` runs those whose
//! names have a part.

mod certificates;
mod clients;
mod etcdctl;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use triarch_lab::suite::{MISSING, Outcome, Suite, Test};
use triarch_lab::{Binaries, Cluster, Options, Profile, ports, suite_tests};

const TESTS: &[Test<World>] = suite_tests! {
    the_facades_certificates_open_it_and_nothing_else_does = certificates::apart;
    etcdctl_does_what_it_does_with_etcd = etcdctl::script;
    the_go_client_does_what_it_does_with_etcd = clients::go;
    the_rust_client_does_what_it_does_with_etcd = clients::rust;
    the_python_client_does_what_it_does_with_etcd = clients::python;
    one_session_at_a_time_holds_a_mutex_while_leaders_are_killed = clients::mutex;
    one_session_at_a_time_holds_a_seat_while_leaders_are_killed = clients::election;
};

/// Three replicas with the facade on, and a certificate for it.
pub struct World {
    pub cluster: Cluster,
    /// `127.0.0.1:port` of each replica's facade.
    pub addresses: Vec<String>,
    /// With `ca.crt`, `client.crt` and `client.key`.
    pub pki: PathBuf,
}

impl World {
    async fn start(dir: &Path) -> Result<World, String> {
        let binaries = Binaries::obtain(Profile::Dev).map_err(text)?;
        let ports = ports::free(3).map_err(text)?;
        let addresses: Vec<String> = ports.iter().map(|p| format!("127.0.0.1:{p}")).collect();
        let flags = addresses.iter().map(|a| vec!["--etcd-listen".to_owned(), a.clone()]).collect();
        let options = Options { binaries: Some(binaries), flags, ..Options::new(dir) };
        let cluster = Cluster::start(options).await.map_err(text)?;
        let pki = dir.join("etcd-pki");
        let out = pki.display().to_string();
        cluster.triarch(&["etcd-certificate", "--user", "clients", "--out", &out]).await.map_err(text)?;
        Ok(World { cluster, addresses, pki })
    }

    pub fn urls(&self) -> String {
        self.addresses.iter().map(|a| format!("https://{a}")).collect::<Vec<_>>().join(",")
    }

    pub fn file(&self, name: &str) -> String {
        self.pki.join(name).display().to_string()
    }

    /// Kills the leader, waits a moment, starts it again and waits until it is well.
    pub async fn kill_leader(&mut self) -> Result<usize, String> {
        let leader = self.cluster.leader().await.map_err(text)?.ok_or("there is no leader")?;
        self.cluster.kill(leader).map_err(text)?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.cluster.restart(leader).map_err(text)?;
        self.cluster.wait_all_ready().await.map_err(text)?;
        Ok(leader)
    }
}

pub fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

fn main() -> ExitCode {
    Suite::main(async |suite, dir| {
        let (began, started) = (Instant::now(), World::start(dir.path()).await);
        let (outcome, world) = match started {
            Ok(world) => (Ok(()), Some(world)),
            Err(why) => (Err(why), None),
        };
        suite.record("three_replicas_start_with_the_facade_on", began, outcome);
        if let Some(mut world) = world {
            suite.run(TESTS, "ETCD", &mut world, async |_| ()).await;
            world.cluster.stop();
        }
    })
}
