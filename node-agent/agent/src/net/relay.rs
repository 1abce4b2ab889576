//! Relays that stand in for routes where there are none (the lab).
//!
//! API: the agent holds the replicas' advertised addresses inside its node and
//! passes connections to the replicas it dials itself, so that pods reach the
//! `kubernetes` Service. Dial: on a unix socket somebody outside the node says
//! `CONNECT host:port` and is connected from inside it.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use triarch_env::Env;

use crate::address::Address;

const MAX_CONNECTIONS: usize = 1024;
const BUFFER: usize = 16 * 1024;
const LIMIT: Duration = Duration::from_secs(5);
const MAX_LINE: usize = 512;

/// Listens on an advertised address (`https://10.0.0.1:6443`) until the process ends.
pub async fn api(env: Env, endpoint: String, prefer: usize, servers: Vec<Address>) {
    let url = if endpoint.contains("://") { endpoint.clone() } else { format!("https://{endpoint}") };
    let Ok(Address::Tcp { host, port }) = Address::parse(&url) else {
        tracing::warn!(%endpoint, "not an address to relay");
        return;
    };
    let Ok(address) = format!("{host}:{port}").parse::<SocketAddr>() else {
        tracing::warn!(%endpoint, "only an IP address can be relayed");
        return;
    };
    let listener = loop {
        hold(&host).await;
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(e) => {
                tracing::warn!(%address, error = %e, "cannot listen for the API's pods yet");
                env.sleep(Duration::from_secs(2)).await;
            }
        }
    };
    tracing::info!(%address, "relaying the API into this node");
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let Ok((mut client, _)) = listener.accept().await else {
            env.sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (of, servers) = (env.clone(), servers.clone());
        env.spawn("api-relay", async move {
            let _slot = slot;
            let _ = client.set_nodelay(true);
            // The replica that the address belongs to, and the others after it.
            for i in 0..servers.len() {
                let server = &servers[(prefer + i) % servers.len()];
                if let Ok(Ok(mut replica)) = of.timeout(LIMIT, server.dial()).await {
                    let _ = copy_bidirectional_with_sizes(&mut client, &mut replica, BUFFER, BUFFER).await;
                    return;
                }
            }
        });
    }
}

/// Gives this node the address, on its loopback.
async fn hold(host: &str) {
    let mut command = tokio::process::Command::new("ip");
    command.args(["addr", "replace", &format!("{host}/32"), "dev", "lo"]).kill_on_drop(true);
    match command.status().await {
        Ok(s) if s.success() => {}
        Ok(s) => tracing::warn!(%host, status = %s, "the address could not be added to lo"),
        Err(e) => tracing::warn!(error = %e, "cannot run ip; install iproute2"),
    }
}

/// Serves `CONNECT host:port` on a unix socket until the process ends.
pub async fn dial(env: Env, path: &Path) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return Ok(()) };
        let Ok((client, _)) = listener.accept().await else {
            env.sleep(Duration::from_millis(50)).await;
            continue;
        };
        let of = env.clone();
        env.spawn("dial-relay", async move {
            let _slot = slot;
            if let Err(e) = one(&of, client).await {
                tracing::debug!(error = %e, "relay");
            }
        });
    }
}

async fn one(env: &Env, mut client: UnixStream) -> std::io::Result<()> {
    let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
    let line = env.timeout(LIMIT, line(&mut client)).await.map_err(late)??;
    let Some(target) = line.strip_prefix("CONNECT ").map(str::trim) else {
        return client.write_all(b"ERROR expected CONNECT host:port\n").await;
    };
    let dialled = env.timeout(LIMIT, TcpStream::connect(target)).await.map_err(late).and_then(|r| r);
    match dialled {
        Ok(mut stream) => {
            stream.set_nodelay(true)?;
            copy_bidirectional_with_sizes(&mut client, &mut stream, BUFFER, BUFFER).await.map(drop)
        }
        // The connection just ends, as one to a closed port does.
        Err(e) => Err(e),
    }
}

async fn line(client: &mut UnixStream) -> std::io::Result<String> {
    let mut out = Vec::new();
    while out.len() < MAX_LINE {
        let byte = client.read_u8().await?;
        if byte == b'\n' {
            return Ok(String::from_utf8_lossy(&out).into_owned());
        }
        out.push(byte);
    }
    Err(std::io::Error::other("the line is too long"))
}

#[cfg(test)]
mod tests {
    use triarch_env::TokioRuntime;

    use super::*;

    #[tokio::test]
    async fn a_connection_is_made_from_inside_the_node() {
        let env = Env::new(TokioRuntime::current());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            let (mut s, _) = listener.accept().await.expect("accepts");
            let mut text = String::new();
            s.read_to_string(&mut text).await.expect("reads to the end");
            s.write_all(format!("got {text}").as_bytes()).await.expect("writes");
        });
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("relay.sock");
        let at = path.clone();
        let of = env.clone();
        tokio::spawn(async move { dial(of, &at).await });
        let mut client = loop {
            match UnixStream::connect(&path).await {
                Ok(s) => break s,
                Err(_) => env.sleep(Duration::from_millis(5)).await,
            }
        };
        client.write_all(format!("CONNECT 127.0.0.1:{port}\nhello").as_bytes()).await.expect("writes");
        client.shutdown().await.expect("half-closes");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("reads");
        assert_eq!(answer, "got hello");
    }
}
