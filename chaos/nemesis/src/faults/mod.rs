//! What can happen to a cluster, one file a fault.
//!
//! A fault hurts, lasts, and heals; [`crate::conduct`] watches over it. Adding
//! one is a file here and a line in [`FAULTS`].

mod clock_skew;
mod crash_all;
mod cut_off;
mod disk_full;
mod disk_slow;
mod disk_stall;
mod flapping;
mod kill;
mod leader_cut_off;
mod one_way;
mod pause;
mod replace;
mod rolling_restart;
mod rolling_upgrade;
mod stop;
mod transfer;

use futures::future::LocalBoxFuture;

use crate::stage::Stage;

/// Every fault, in the order in which reports list them.
pub const FAULTS: &[Kind] = &[
    kill::KIND,
    pause::KIND,
    stop::KIND,
    transfer::KIND,
    leader_cut_off::KIND,
    cut_off::KIND,
    one_way::KIND,
    flapping::KIND,
    crash_all::KIND,
    disk_full::KIND,
    disk_slow::KIND,
    disk_stall::KIND,
    clock_skew::KIND,
    rolling_restart::KIND,
    rolling_upgrade::KIND,
    replace::KIND,
];

/// The fault of that name.
pub fn by_name(name: &str) -> Option<&'static Kind> {
    FAULTS.iter().find(|k| k.name == name)
}

/// Whom it may hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Whoever leads.
    Leader,
    /// Whoever does not.
    Follower,
    /// The schedule says which of those two.
    Any,
    /// All of them.
    All,
}

/// One fault as it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The replica, by index.
    pub replica: usize,
    /// How long it lasts, milliseconds, for those that last.
    pub ms: u64,
    /// Chance for what else is to be decided.
    pub dice: u64,
}

pub type Act = for<'a> fn(&'a mut Stage, &'a Hit) -> LocalBoxFuture<'a, anyhow::Result<()>>;

/// One fault as it is.
pub struct Kind {
    pub name: &'static str,
    /// For who reads the report.
    pub what: &'static str,
    pub target: Target,
    /// Milliseconds, from and below; equal: it takes as long as it takes.
    pub lasts: (u64, u64),
    /// Writes are acknowledged again while it lasts.
    pub goes_on: bool,
    /// The replica is away and comes back: no election may come of that.
    pub rejoins: bool,
    /// A client that retries as kubectl does has no failed request by it.
    pub unnoticed: bool,
    /// Why it cannot be done on this stage.
    pub lacks: fn(&Stage) -> Option<String>,
    pub hurt: Act,
    pub heal: Act,
}

/// Nothing is lacking.
fn nothing(_: &Stage) -> Option<String> {
    None
}

fn namespaces(stage: &Stage) -> Option<String> {
    stage.network.is_none().then(|| "replicas are not in namespaces of their own".to_owned())
}

fn disks(stage: &Stage) -> Option<String> {
    stage.disks.is_empty().then(|| "replicas are not on disks of their own".to_owned())
}

/// Starts the replica that was hurt, when it is down.
async fn start(stage: &mut Stage, hit: &Hit) -> anyhow::Result<()> {
    if !stage.cluster().replica(hit.replica).is_running() {
        stage.cluster().restart(hit.replica)?;
    }
    Ok(())
}

/// All replicas reach one another again.
async fn heal_network(stage: &mut Stage) -> anyhow::Result<()> {
    let network = stage.network()?.clone();
    Ok(tokio::task::block_in_place(|| network.heal())?)
}

/// There was nothing that lasts.
async fn done() -> anyhow::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_in_the_list_once_under_its_own_name() {
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/faults")).unwrap();
        let mut files: Vec<String> =
            files.map(|f| f.unwrap().file_name().into_string().unwrap().replace(".rs", "")).collect();
        files.retain(|f| f != "mod");
        files.sort();
        let mut names: Vec<String> = FAULTS.iter().map(|k| k.name.replace('-', "_")).collect();
        names.sort();
        assert_eq!(names, files);
    }
}
