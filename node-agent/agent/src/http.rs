//! `/healthz` and `/metrics`, on a unix socket or a loopback port.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use triarch_env::Env;

use crate::node::Node;

const MAX_HEAD: usize = 8 * 1024;
const LIMIT: Duration = Duration::from_secs(5);

/// A socket that is held and not served yet.
pub enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// Listens on `at`: `unix:///path` (an old socket there is replaced) or
/// `127.0.0.1:port`. The error says what to do about it.
pub async fn bind(at: &str) -> Result<Listener, String> {
    let bound = match at.strip_prefix("unix://") {
        Some(path) => {
            let _ = std::fs::remove_file(path);
            UnixListener::bind(path).map(Listener::Unix)
        }
        None => TcpListener::bind(at).await.map(Listener::Tcp),
    };
    bound.map_err(|e| {
        let hint =
            if e.kind() == std::io::ErrorKind::AddrInUse { "; stop what listens there, or choose another" } else { "" };
        format!("--metrics: cannot listen on {at}: {e}{hint}")
    })
}

/// Serves until its task ends.
pub async fn serve(env: Env, listener: Listener, nodes: Arc<Vec<Arc<Node>>>) {
    loop {
        let accepted = match &listener {
            Listener::Unix(l) => l.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Connection>),
            Listener::Tcp(l) => l.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Connection>),
        };
        let Ok(stream) = accepted else {
            // Out of descriptors, most likely.
            env.sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (of, nodes) = (env.clone(), nodes.clone());
        env.spawn("http", async move { drop(of.timeout(LIMIT, one(stream, &nodes)).await) });
    }
}

trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection for S {}

async fn one(mut stream: impl Connection, nodes: &[Arc<Node>]) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") && head.len() < MAX_HEAD {
        match stream.read(&mut buffer).await? {
            0 => break,
            n => head.extend_from_slice(&buffer[..n]),
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let path = text.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match path {
        "/healthz" | "/livez" => ("200 OK", "ok".to_owned()),
        "/readyz" => match nodes.iter().all(|n| n.is_connected()) {
            true => ("200 OK", "ok".to_owned()),
            false => ("503 Service Unavailable", "no session with the control plane".to_owned()),
        },
        "/metrics" => ("200 OK", metrics(nodes)),
        _ => ("404 Not Found", "404 page not found".to_owned()),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

fn metrics(nodes: &[Arc<Node>]) -> String {
    let mut out = String::new();
    let mut put = |name: &str, help: &str, kind: &str, value: u64| {
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    };
    let depths: Vec<_> = nodes.iter().map(|n| n.outbox().depth()).collect();
    let connected = nodes.iter().filter(|n| n.is_connected()).count();
    put("triarch_node_nodes", "Nodes in this process.", "gauge", nodes.len() as u64);
    put("triarch_node_connected", "Nodes with a session.", "gauge", connected as u64);
    put("triarch_node_pods", "Pods held.", "gauge", nodes.iter().map(|n| n.kubelet().len() as u64).sum());
    let statuses = depths.iter().map(|d| d.statuses as u64).sum();
    put("triarch_node_statuses_pending", "Pod statuses not acknowledged yet.", "gauge", statuses);
    put("triarch_node_events_pending", "Events not sent yet.", "gauge", depths.iter().map(|d| d.events as u64).sum());
    let dropped = depths.iter().map(|d| d.dropped_events).sum();
    put("triarch_node_events_dropped_total", "Events dropped at the bound.", "counter", dropped);
    let revision = nodes.iter().map(|n| n.position().1).min().unwrap_or(0);
    put("triarch_node_applied_revision", "Lowest assignment revision in force.", "gauge", revision);
    out
}
