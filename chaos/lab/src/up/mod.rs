//! `./up`, `./up status` and `./up down`.

mod down;
mod run;
mod status;

pub use down::{DownArgs, down};
pub use run::{UpArgs, up};
pub use status::{StatusArgs, status};

use std::path::PathBuf;

use crate::binaries::workspace_root;

/// Where everything of `./up` is kept: `.triarch` in the checkout.
pub fn default_dir() -> PathBuf {
    workspace_root().join(".triarch")
}
