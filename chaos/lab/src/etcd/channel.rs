//! Connections to anything that speaks etcd's API.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::error::{Context, Result};

/// Room of one stream, bytes.
const STREAM_WINDOW: u32 = 1 << 20;
/// Room of a connection for what its many watches are sent at once, bytes.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// A member that does not take a connection by then is not there.
const CONNECT: Duration = Duration::from_secs(2);

fn endpoint(url: &str, limit: Option<Duration>) -> Result<Endpoint> {
    let endpoint = Endpoint::from_shared(url.to_owned()).step("etcd", url)?;
    let endpoint = endpoint.tcp_nodelay(true).connect_timeout(CONNECT);
    let endpoint = endpoint.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    Ok(match limit {
        Some(limit) => endpoint.timeout(limit),
        None => endpoint,
    })
}

/// A connection on which every request ends after `limit`.
///
/// # Errors
/// The address is none, or nobody answers there.
pub async fn dial(url: &str, limit: Duration) -> Result<Channel> {
    endpoint(url, Some(limit))?.connect().await.step("etcd", url)
}

/// One that is made at the first request, and again whenever it is broken.
///
/// # Errors
/// The address is none.
pub fn dial_lazy(url: &str, limit: Option<Duration>) -> Result<Channel> {
    Ok(endpoint(url, limit)?.connect_lazy())
}
