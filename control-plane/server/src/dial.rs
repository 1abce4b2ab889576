//! gRPC channels: over a unix socket, and over TLS to `https://host:port`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// `fut`, or an error after `limit`.
pub async fn with_timeout<T>(limit: Duration, fut: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    match tokio::time::timeout(limit, fut).await {
        Ok(result) => result,
        Err(_) => bail!("no answer within {limit:?}"),
    }
}

/// A channel over a unix socket without TLS (the admin socket: its directory
/// is what protects it).
pub async fn unix(path: &Path) -> anyhow::Result<Channel> {
    let path: PathBuf = path.to_owned();
    let connect = service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector(connect).await.map_err(root_cause)
}

/// The innermost error: tonic's own says only "transport error".
fn root_cause(e: tonic::transport::Error) -> anyhow::Error {
    let e = anyhow::Error::from(e);
    let cause = e.root_cause();
    // An IO error shows what it was made of, and hides it from whoever asks for causes.
    let inner = cause.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
    match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::General(text)) => anyhow::anyhow!("{text}"),
        _ => anyhow::anyhow!("{cause}"),
    }
}

/// A channel to `https://host:port` with this TLS configuration (ALPN h2).
pub async fn https(url: &str, mut tls: ClientConfig) -> anyhow::Result<Channel> {
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let authority = url.strip_prefix("https://").with_context(|| format!("{url:?}: expected https://host:port"))?;
    let authority = authority.trim_end_matches('/').to_owned();
    let host = authority.rsplit_once(':').map_or(authority.as_str(), |(h, _)| h);
    let name = rustls_pki_types::ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .with_context(|| format!("{url:?}: not a host name"))?;
    let connector = TlsConnector::from(Arc::new(tls));
    let address = if authority.contains(':') { authority.clone() } else { format!("{authority}:443") };
    let connect = service_fn(move |_: Uri| {
        let (connector, name, address) = (connector.clone(), name.clone(), address.clone());
        async move {
            let tcp = TcpStream::connect(&address).await?;
            tcp.set_nodelay(true)?;
            connector.connect(name, tcp).await.map(TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))?;
    endpoint.connect_with_connector(connect).await.map_err(root_cause)
}
