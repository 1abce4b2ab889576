//! /version.

use serde_json::{Value, json};

/// What the server says that it is.
#[derive(Clone, Debug)]
pub struct VersionInfo {
    /// `v1.37.0+triarch`
    pub git_version: String,
    pub git_commit: String,
    pub build_date: String,
}

impl Default for VersionInfo {
    fn default() -> VersionInfo {
        VersionInfo {
            git_version: "v1.37.0+triarch".into(),
            git_commit: option_env!("TRIARCH_COMMIT").unwrap_or("unknown").into(),
            build_date: "1970-01-01T00:00:00Z".into(),
        }
    }
}

impl VersionInfo {
    pub fn document(&self) -> Value {
        json!({
            "major": "1",
            "minor": "37",
            "emulationMajor": "1",
            "emulationMinor": "37",
            "minCompatibilityMajor": "1",
            "minCompatibilityMinor": "36",
            "gitVersion": self.git_version,
            "gitCommit": self.git_commit,
            "gitTreeState": "clean",
            "buildDate": self.build_date,
            "goVersion": "none",
            "compiler": "rustc",
            "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
        })
    }
}
