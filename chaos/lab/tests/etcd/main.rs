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

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use triarch_lab::suite::Suite;
use triarch_lab::{Binaries, Cluster, Options, Profile, ports};

/// A test that cannot be made here begins its reason with this.
const MISSING: &str = "missing: ";

type Outcome = Result<(), String>;
type Test = fn(&mut World) -> LocalBoxFuture<'_, Outcome>;

macro_rules! tests {
    ($($name:ident = $path:path;)*) => { &[$((stringify!($name), |world| $path(world).boxed_local())),*] };
}

const TESTS: &[(&str, Test)] = tests! {
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
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(run())
}

async fn run() -> ExitCode {
    let mut suite = Suite::default();
    let began = Instant::now();
    let dir = tempfile::Builder::new().prefix("triarch-etcd-").tempdir().expect("a folder");
    let mut world = match World::start(dir.path()).await {
        Ok(world) => world,
        Err(why) => {
            suite.record("three_replicas_start_with_the_facade_on", began, Err(why));
            println!("logs are kept in {}", dir.keep().join("logs").display());
            return suite.finish();
        }
    };
    suite.record("three_replicas_start_with_the_facade_on", began, Ok(()));
    let wanted = std::env::var("ETCD").unwrap_or_default();
    for (name, test) in TESTS.iter().filter(|t| wanted.is_empty() || wanted.split(',').any(|w| t.0.contains(w))) {
        let began = Instant::now();
        match test(&mut world).await {
            Err(why) if why.starts_with(MISSING) => suite.skip(name, why),
            outcome => suite.record(name, began, outcome),
        }
    }
    world.cluster.stop();
    if suite.failed > 0 {
        println!("logs are kept in {}", dir.keep().join("logs").display());
    }
    suite.finish()
}
