//! Where a replica listens, `https://host:port` or `unix:///path`, and TLS to it.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// The name in the certificates of replicas reached over a unix socket.
const LOCAL_NAME: &str = "localhost";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl Address {
    /// # Errors
    /// Says what it got and what it takes.
    pub fn parse(text: &str) -> Result<Address, String> {
        let bad = || format!("{text:?} is not a replica's address: expected https://HOST:PORT or unix:///PATH");
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') { Ok(Address::Unix(path.into())) } else { Err(bad()) };
        }
        let rest = text.strip_prefix("https://").ok_or_else(bad)?.trim_end_matches('/');
        let (host, port) = rest.rsplit_once(':').ok_or_else(bad)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains('/') {
            return Err(bad());
        }
        Ok(Address::Tcp { host: host.to_owned(), port: port.parse().map_err(|_| bad())? })
    }

    /// A connection without TLS (a relay passes the client's own through).
    pub async fn dial(&self) -> std::io::Result<Raw> {
        match self {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Ok(Raw::Tcp(stream))
            }
            Address::Unix(path) => Ok(Raw::Unix(UnixStream::connect(path).await?)),
        }
    }

    /// A TLS connection.
    pub async fn connect(&self, tls: Arc<ClientConfig>) -> std::io::Result<tokio_rustls::client::TlsStream<Raw>> {
        let name = match self {
            Address::Tcp { host, .. } => host.clone(),
            Address::Unix(_) => LOCAL_NAME.to_owned(),
        };
        let name = ServerName::try_from(name).map_err(std::io::Error::other)?;
        TlsConnector::from(tls).connect(name, self.dial().await?).await
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "https://[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "https://{host}:{port}"),
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// A byte stream of either kind.
#[derive(Debug)]
pub enum Raw {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsyncRead for Raw {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Raw::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Raw::Unix(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Raw {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Raw::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Raw::Unix(s) => Pin::new(s).poll_write(cx, buf),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Raw::Tcp(s) => Pin::new(s).poll_flush(cx),
            Raw::Unix(s) => Pin::new(s).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Raw::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Raw::Unix(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_alike() {
        for text in ["https://10.0.0.1:6443", "https://[::1]:6443", "unix:///run/r1.sock"] {
            assert_eq!(Address::parse(text).expect("valid").to_string(), text);
        }
        for bad in ["http://x:1", "https://x", "unix://relative", "https://:1", "x"] {
            assert!(Address::parse(bad).expect_err("invalid").contains("expected https://HOST:PORT"), "{bad}");
        }
    }
}
