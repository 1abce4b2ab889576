//! A loopback listener whose connections are made from inside a node: how the
//! sample application is reached from the root namespace, which has no route
//! to pods or Services.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::error::{Context, Result};

/// Connections at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 256;
/// A node that has not taken the connection by then is passed over.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Listens until dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Relay {
    /// Listens on 127.0.0.1:`port` (0: any) and dials `target` (`host:port`)
    /// inside the first node whose agent takes the connection.
    pub async fn start(port: u16, nodes: Vec<PathBuf>, target: String) -> Result<Relay> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.step("app", format!("listen on port {port}"))?;
        let address = listener.local_addr().step("app", "local address")?;
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let nodes: Arc<[PathBuf]> = nodes.into();
        let target: Arc<str> = target.into();
        let task = tokio::spawn(async move {
            while let Ok(slot) = slots.clone().acquire_owned().await {
                let Ok((client, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                };
                let (nodes, target) = (nodes.clone(), target.clone());
                tokio::spawn(async move {
                    let _slot = slot;
                    // A connection that cannot be made, or breaks, just ends:
                    // the client sees it as it would see the server's.
                    let _ = pass(client, &nodes, &target).await;
                });
            }
        });
        Ok(Relay { address, task })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut client: TcpStream, nodes: &[PathBuf], target: &str) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    for socket in nodes {
        let dialled = tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(socket)).await;
        if let Ok(Ok(mut node)) = dialled {
            node.write_all(format!("CONNECT {target}\n").as_bytes()).await?;
            return tokio::io::copy_bidirectional(&mut client, &mut node).await.map(drop);
        }
    }
    Err(std::io::ErrorKind::ConnectionRefused.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
    use tokio::net::UnixListener;

    #[tokio::test]
    async fn a_connection_goes_through_the_first_node_that_takes_it() {
        let dir = tempfile::tempdir().unwrap();
        let (dead, live) = (dir.path().join("dead.sock"), dir.path().join("live.sock"));
        let listener = UnixListener::bind(&live).unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
            stream.write_all(format!("{}|{rest}", line.trim()).as_bytes()).await.unwrap();
        });
        let relay = Relay::start(0, vec![dead, live], "10.96.0.9:80".into()).await.unwrap();
        let mut client = TcpStream::connect(relay.address()).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "CONNECT 10.96.0.9:80|hello");
    }
}
