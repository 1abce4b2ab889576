//! Damage at rest to a whole data directory: the replica has exactly what was
//! acknowledged, or does not start and says which file, and what to do.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::{put, replica};
use triarch_env::disk::damage::{Damage, Image, cuts, flips, read_tree, write_tree};
use triarch_env::{Env, TokioRuntime};
use triarch_mvcc::{Db, Prefix};
use triarch_raft::{DataDir, Identity, NoPeers, NodeId, RaftConfig, RaftDb, Stores};
use triarch_wal::Config;

/// Objects, each with its bytes and revisions.
type State = Vec<(String, Vec<u8>, u64, u64)>;

fn identity(cluster: &str, id: NodeId) -> Identity {
    let incarnation = id * 1000 + cluster.len() as u64;
    Identity { format: triarch_raft::FORMAT, cluster_id: cluster.into(), node_id: id, name: "r".into(), incarnation }
}

/// A replica that runs alone.
struct Alone {
    db: Arc<RaftDb>,
    stores: triarch_wal::WalHandle,
    _dir: DataDir,
}

impl Alone {
    async fn start(path: &Path, born: Option<Identity>) -> Result<Alone, String> {
        let env = Env::new(TokioRuntime::current());
        let mut dir = DataDir::open(path).map_err(|e| e.to_string())?;
        let new = born.is_some();
        if let Some(identity) = born {
            dir.create_identity(identity).unwrap();
        }
        let me = dir.identity().ok_or("an empty directory")?.clone();
        dir.expect(None, Some("r")).map_err(|e| e.to_string())?;
        let wal = Config { segment_bytes: 8 << 10, salt: env.random_u64(), ..Config::default() };
        let stores = Stores::open(&dir, &env, &wal, None).map_err(|e| e.to_string())?;
        let mut config = RaftConfig::new(me.cluster_id, me.node_id, replica(me.node_id));
        config.replica.incarnation = me.incarnation;
        config.new_log = new;
        config.window.events = 20;
        config.window.check = Duration::from_millis(20);
        let handle = stores.wal.clone();
        match RaftDb::start(config, env, stores, Arc::new(NoPeers)).await {
            Ok(db) => Ok(Alone { db, stores: handle, _dir: dir }),
            Err(e) => {
                handle.shutdown().await;
                Err(e.to_string())
            }
        }
    }

    fn state(&self) -> State {
        let list = triarch_mvcc::ListRequest::all(Prefix::resource("configmaps"));
        let items = self.db.mvcc().list(&list).unwrap().items.into_iter();
        items.map(|s| (format!("{:?}", s.key), s.object.bytes.to_vec(), s.create_revision, s.mod_revision)).collect()
    }

    async fn stop(self) {
        self.db.shutdown().await;
        self.stores.shutdown().await;
    }
}

/// A directory at rest whose log goes on from its checkpoint, and what was acknowledged.
async fn at_rest(cluster: &str, id: NodeId) -> (Image, State) {
    let dir = tempfile::tempdir().unwrap();
    let alone = Alone::start(dir.path(), Some(identity(cluster, id))).await.unwrap();
    alone.db.initialize().await.unwrap();
    alone.db.ready().await;
    for n in 0..120 {
        alone.db.commit(put(&format!("k{:02}", n % 30), &"x".repeat(100 + n))).await.unwrap();
    }
    for _ in 0..400 {
        if alone.stores.state().purged.is_some_and(|p| p.index > 40) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let runs = || std::fs::read_dir(dir.path().join("checkpoint")).unwrap().count();
    for n in 0..400 {
        alone.db.commit(put(&format!("last{}", n % 30), &"y".repeat(100))).await.unwrap();
        if n >= 30 && runs() > 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(if n < 30 { 0 } else { 10 })).await;
    }
    assert!(alone.stores.state().purged.is_some_and(|p| p.index > 40), "{:?}", alone.stores.state());
    let state = alone.state();
    alone.stop().await;
    (read_tree(dir.path()).unwrap(), state)
}

/// What came of an opening: the state, or what was said.
async fn open(image: &Image) -> Result<State, String> {
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path(), image).unwrap();
    let alone = Alone::start(dir.path(), None).await?;
    let ready = tokio::time::timeout(Duration::from_secs(20), alone.db.ready()).await;
    let state = alone.state();
    alone.stop().await;
    ready.map(|()| state).map_err(|_| "it never became ready".into())
}

/// The two outcomes that are right.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Want {
    Exact,
    Refused,
    /// As the place of the damage has it.
    Either,
}

/// The words that name what is damaged, and those that say what to do.
const NAMES: [&str; 6] = ["IDENTITY", ".wal, byte ", "checkpoint", "wal/", "empty log", "has format 2"];
const WAYS: [&str; 5] =
    ["join it again", "join again", "--data-dir", "the release that wrote it", "fetches one from another"];

struct Table {
    image: Image,
    state: State,
    exact: u32,
    refused: u32,
}

impl Table {
    async fn of(image: Image, state: State) -> Table {
        assert_eq!(open(&image).await.as_ref(), Ok(&state), "nothing is damaged yet");
        Table { image, state, exact: 0, refused: 0 }
    }

    fn files(&self, part: &str) -> Vec<PathBuf> {
        self.image.keys().filter(|p| p.to_string_lossy().contains(part)).cloned().collect()
    }

    async fn judge(&mut self, row: &str, damaged: &Image, want: Want) {
        match open(damaged).await {
            Ok(state) => {
                assert!(want != Want::Refused, "{row}: it started");
                assert!(state == self.state, "{row}: a state that was never acknowledged");
                self.exact += 1;
            }
            Err(why) => {
                assert!(want != Want::Exact, "{row}: {why}");
                let says = |words: &[&str]| words.iter().any(|w| why.contains(w));
                assert!(says(&NAMES) && says(&WAYS), "{row}: {why}");
                self.refused += 1;
            }
        }
    }

    async fn rows(&mut self, file: &Path, damages: impl IntoIterator<Item = Damage>, want: Want) {
        for damage in damages {
            let damaged = damage.done_to(file, &self.image);
            self.judge(&format!("{} {damage:?}", file.display()), &damaged, want).await;
        }
    }

    /// With the files under `part` as `other` has them, or gone.
    fn with(&self, part: &str, other: Option<&Image>) -> Image {
        let inside = |p: &&PathBuf| p.starts_with(part);
        let mut out = self.image.clone();
        out.retain(|p, _| !p.starts_with(part));
        let theirs = other.into_iter().flat_map(|o| o.iter()).filter(|(p, _)| inside(p));
        out.extend(theirs.map(|(p, b)| (p.clone(), b.clone())));
        out
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_identity_is_refused_or_costs_nothing() {
    let (image, state) = at_rest("test", 1).await;
    let mut t = Table::of(image, state).await;
    let file = Path::new("IDENTITY");
    let len = t.image[file].len();
    t.rows(file, flips(len).step_by(3), Want::Either).await;
    t.rows(file, cuts(len).step_by(20), Want::Refused).await;
    let other = |i: Identity| Damage::ReplacedBy("another's", serde_json::to_vec(&i).unwrap());
    let later = br#"{"format": 2, "clusterUid": "x"}"#.to_vec();
    let rows = [
        Damage::Missing,
        other(identity("other", 1)),
        other(identity("test", 2)),
        other(Identity { incarnation: 5, ..identity("test", 1) }),
        Damage::ReplacedBy("a later release's", later),
    ];
    t.rows(file, rows, Want::Refused).await;
    println!("exact={} refused={}", t.exact, t.refused);
    assert!(t.refused > 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_is_refused_or_costs_nothing() {
    let (image, state) = at_rest("test", 1).await;
    let mut t = Table::of(image, state).await;
    let files = t.files(".wal");
    assert!(files.len() >= 2, "{files:?}");
    for file in &files {
        let used = t.image[file].iter().rposition(|b| *b != 0).unwrap();
        t.rows(file, flips(used - 40).step_by(used / 12), Want::Refused).await;
        t.rows(file, cuts(used - 80).step_by(used / 4), Want::Refused).await;
        t.rows(file, [Damage::Missing], Want::Either).await;
    }
    let (first, last) = (files[0].clone(), files[files.len() - 1].clone());
    t.rows(&last, [Damage::Missing, Damage::SwappedWith(first)], Want::Refused).await;
    println!("exact={} refused={}", t.exact, t.refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_checkpoint_is_refused_or_costs_nothing() {
    let (image, state) = at_rest("test", 1).await;
    let mut t = Table::of(image, state).await;
    let files = t.files("checkpoint/");
    assert!(files.len() >= 2, "{files:?}");
    for file in &files {
        let len = t.image[file].len();
        t.rows(file, flips(len).step_by(len / 8 + 1), Want::Refused).await;
        let text = Damage::ReplacedBy("text", b"hello".to_vec());
        t.rows(file, [Damage::Cut(0), Damage::Cut(len / 2), Damage::Cut(len - 1), text], Want::Refused).await;
        // Without the newest, the log may still go on from what is left.
        let want = if Some(file) == files.last() { Want::Either } else { Want::Refused };
        t.rows(file, [Damage::Missing], want).await;
    }
    let (first, last) = (files[0].clone(), files[files.len() - 1].clone());
    t.rows(&last, [Damage::SwappedWith(first)], Want::Refused).await;
    println!("exact={} refused={}", t.exact, t.refused);
    assert!(t.refused > 20, "exact={} refused={}", t.exact, t.refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_another_replicas_directory_are_refused_and_strange_files_cost_nothing() {
    let (image, state) = at_rest("test", 1).await;
    let (cluster, _) = at_rest("other", 1).await;
    let (peer, _) = at_rest("test", 2).await;
    let mut t = Table::of(image, state).await;
    for (other, whose) in [(&cluster, "another cluster's"), (&peer, "another replica's")] {
        for part in ["wal", "checkpoint"] {
            let damaged = t.with(part, Some(other));
            t.judge(&format!("{whose} {part}"), &damaged, Want::Refused).await;
        }
    }
    for part in ["wal", "checkpoint"] {
        let damaged = t.with(part, None);
        t.judge(&format!("{part} is missing"), &damaged, Want::Refused).await;
    }
    let strange: Vec<PathBuf> =
        ["wal/README", "wal/1.wal", "checkpoint/old.tar", "lost+found", "core.1234"].map(PathBuf::from).into();
    t.rows(Path::new("IDENTITY"), strange.into_iter().map(Damage::CopiedTo), Want::Exact).await;
    t.rows(Path::new("LOCK"), [Damage::Missing, Damage::ReplacedBy("text", b"hello".to_vec())], Want::Exact).await;
}
