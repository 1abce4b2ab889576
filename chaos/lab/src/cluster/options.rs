//! What a cluster is started with.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::network::Network;
use crate::binaries::{Binaries, Profile};
use crate::user::User;

/// Names of replicas, in order of birth.
pub const NAMES: &[&str] = &["a", "b", "c", "d", "e"];

/// How to start a cluster; `Options::new(dir)` is three replicas from a
/// development build.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything is kept.
    pub dir: PathBuf,
    /// 1 to 5.
    pub replicas: usize,
    pub profile: Profile,
    /// Programs to use; `None`: found or built.
    pub binaries: Option<Binaries>,
    /// The user that replicas run as; `None`: this process's own.
    pub user: Option<User>,
    /// Keys of ServerConfiguration that differ from the default.
    pub config: Map<String, Value>,
    /// More environment of the replicas.
    pub env: Vec<(String, String)>,
    /// Flags of `triarch server` for each replica, by index.
    pub flags: Vec<Vec<String>>,
    /// More environment of each replica, by index.
    pub own_env: Vec<Vec<(String, String)>>,
    /// Network namespaces; `None`: all on this machine's loopback, with a port
    /// that they share.
    pub network: Option<Network>,
}

impl Options {
    pub fn new(dir: &Path) -> Options {
        Options {
            dir: dir.to_owned(),
            replicas: 3,
            profile: Profile::Dev,
            binaries: None,
            user: User::caller(),
            config: Map::new(),
            env: Vec::new(),
            flags: Vec::new(),
            own_env: Vec::new(),
            network: None,
        }
    }

    pub fn release(dir: &Path) -> Options {
        Options { profile: Profile::Release, ..Options::new(dir) }
    }

    /// Sets a key of ServerConfiguration.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Options {
        self.config.insert(key.to_owned(), value.into());
        self
    }
}
