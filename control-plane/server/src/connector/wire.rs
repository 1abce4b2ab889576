//! A tunnel as an ordinary byte stream, and HTTP/1.1 heads as bytes.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use triarch_gateway::tunnels::{Received, Tunnel, TunnelError};
use triarch_rpc::node::TunnelFrame;
use triarch_rpc::node::tunnel_frame::Body;

/// Bytes buffered in each direction of a joined stream.
const BUFFER: usize = 64 * 1024;
/// Largest response head that is read from a tunnel.
const MAX_HEAD: usize = 64 * 1024;

/// Joins a tunnel to a byte stream: what is written to the stream goes to the
/// node, what the node sends can be read. Ends in each direction are passed on
/// for themselves.
pub fn into_stream(tunnel: Tunnel) -> DuplexStream {
    let (near, far) = tokio::io::duplex(BUFFER);
    tokio::spawn(pump(far, tunnel));
    near
}

/// Copies both ways until the node has ended or the client is gone. A node that
/// takes no more may still have sent: that is passed on before the end.
pub async fn pump<S>(stream: S, tunnel: Tunnel)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static,
{
    let (mut read, mut write) = tokio::io::split(stream);
    let (to_agent, mut from_agent) = tunnel.split();
    let up = async {
        let mut buf = BytesMut::with_capacity(16 * 1024);
        loop {
            buf.reserve(16 * 1024);
            let Ok(n) = read.read_buf(&mut buf).await else { return ClientGone };
            let body = if n == 0 { Body::Eof(true) } else { Body::Data(buf.split().freeze()) };
            let taken = to_agent.send(TunnelFrame { body: Some(body) }).await.is_ok();
            if n == 0 || !taken {
                // The other direction knows when it is over.
                return std::future::pending().await;
            }
        }
    };
    let down = async {
        while let Some(frame) = from_agent.recv().await {
            match frame.body {
                Some(Body::Data(d)) => {
                    if write.write_all(&d).await.is_err() {
                        return;
                    }
                }
                Some(Body::Eof(_)) => {
                    let _closed = write.shutdown().await;
                    return;
                }
                Some(Body::Error(_)) => return,
                Some(Body::Hello(_)) | None => {}
            }
        }
    };
    let (up, down) = (std::pin::pin!(up), std::pin::pin!(down));
    let _ended = futures::future::select(down, up).await;
}

/// Why copying from the client ends all.
struct ClientGone;

/// A response head read from a tunnel, and the bytes that came after it.
pub struct Head {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub rest: Bytes,
}

/// Reads an HTTP/1.1 response head.
pub async fn read_head(tunnel: &mut Tunnel) -> Result<Head, TunnelError> {
    let mut buf = BytesMut::new();
    loop {
        if let Some(end) = buf.windows(4).position(|w| w == b"\r\n\r\n") {
            let rest = buf.split_off(end + 4).freeze();
            return parse_head(&buf).map(|(status, headers)| Head { status, headers, rest }).ok_or(TunnelError::Broken);
        }
        if buf.len() > MAX_HEAD {
            return Err(TunnelError::Broken);
        }
        match tunnel.recv().await? {
            Received::Data(d) => buf.extend_from_slice(&d),
            Received::Eof => return Err(TunnelError::Broken),
        }
    }
}

fn parse_head(head: &[u8]) -> Option<(StatusCode, HeaderMap)> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse::<u16>().ok()?;
    let mut headers = HeaderMap::new();
    for line in lines.filter(|l| !l.is_empty()) {
        let (name, value) = line.split_once(':')?;
        headers.append(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value.trim()).ok()?);
    }
    Some((StatusCode::from_u16(status).ok()?, headers))
}

#[cfg(test)]
mod tests {
    use triarch_env::{Env, TokioRuntime};
    use triarch_gateway::TunnelHub;
    use triarch_rpc::node::{DialRequest, tunnel_open};

    use super::*;

    #[tokio::test]
    async fn what_a_node_said_before_it_closed_arrives_though_it_takes_nothing_more() {
        let hub = TunnelHub::new(Env::new(TokioRuntime::current()));
        let mut agent = hub.attach("n1");
        let of = hub.clone();
        let kind = tunnel_open::Kind::Dial(DialRequest::default());
        let opening = tokio::spawn(async move { of.open("n1", kind).await.unwrap() });
        let told = agent.next().await.unwrap();
        let said = |b: &'static [u8]| Ok::<_, ()>(TunnelFrame { body: Some(Body::Data(Bytes::from_static(b))) });
        let end = Ok(TunnelFrame { body: Some(Body::Eof(true)) });
        let frames = futures::stream::iter(vec![said(b"last "), said(b"words"), end]);
        // The agent is gone with its half of the tunnel at once.
        drop(hub.opened(&told.id, |_| true, frames).unwrap());
        let (mut client, far) = tokio::io::duplex(64);
        client.write_all(b"are you there?").await.unwrap();
        pump(far, opening.await.unwrap()).await;
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "last words");
    }

    #[test]
    fn a_response_head_gives_its_status_and_every_header() {
        let (status, headers) =
            parse_head(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\nX-A: 1\r\nX-A: 2\r\n\r\n").unwrap();
        assert_eq!(status, 101);
        assert_eq!(headers["upgrade"], "SPDY/3.1");
        assert_eq!(headers.get_all("x-a").iter().count(), 2);
        assert!(parse_head(b"nonsense\r\n\r\n").is_none());
    }
}
