//! Logs: tracing as text or JSON on standard error.

use tracing_subscriber::EnvFilter;

use crate::config::{ConfigError, LogConfiguration};

/// Starts logging. Call once.
pub fn init(config: &LogConfiguration) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(&config.filter).map_err(|e| ConfigError::Value {
        key: "log.filter".into(),
        got: config.filter.clone(),
        takes: format!("a tracing filter such as info,triarch_raft=debug ({e})"),
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start keeps the first subscriber.
    let _already = match config.format.as_str() {
        "json" => builder.json().flatten_event(true).try_init(),
        _ => builder.with_ansi(false).try_init(),
    };
    Ok(())
}
