//! Pooled HTTPS connections to one address.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A connection that is not there by then is given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub type Http = Client<Connector, Full<Bytes>>;

/// A client that speaks only HTTP/2 or only HTTP/1.1.
pub fn client(tls: ClientConfig, h2: bool) -> Http {
    let connector = Connector { tls: Arc::new(tls), h2 };
    Client::builder(TokioExecutor::new()).http2_only(h2).pool_max_idle_per_host(256).build(connector)
}

#[derive(Clone)]
pub struct Connector {
    tls: Arc<ClientConfig>,
    h2: bool,
}

impl tower::Service<http::Uri> for Connector {
    type Response = Tls;
    type Error = std::io::Error;
    type Future = futures::future::BoxFuture<'static, std::io::Result<Tls>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        let (tls, h2) = (self.tls.clone(), self.h2);
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let port = uri.port_u16().unwrap_or(443);
            let dial = async {
                let tcp = TcpStream::connect((host.as_str(), port)).await?;
                tcp.set_nodelay(true)?;
                let name = ServerName::try_from(host.clone()).map_err(std::io::Error::other)?;
                TlsConnector::from(tls).connect(name, tcp).await
            };
            let stream = tokio::time::timeout(CONNECT_TIMEOUT, dial).await.map_err(std::io::Error::other)??;
            Ok(Tls { stream: TokioIo::new(stream), h2 })
        })
    }
}

/// A TLS stream that says which protocol it carries.
pub struct Tls {
    stream: TokioIo<TlsStream<TcpStream>>,
    h2: bool,
}

impl Connection for Tls {
    fn connected(&self) -> Connected {
        if self.h2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl Read for Tls {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl Write for Tls {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
