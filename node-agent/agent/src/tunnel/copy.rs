//! Bytes both ways between a tunnel and a connection, each way ending by itself.

use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use triarch_rpc::node::TunnelFrame;
use triarch_rpc::node::tunnel_frame::Body;

use super::{FRAME, Frames, data, eof};
use crate::session::Inbound;

/// Copies until both ways have ended, or the tunnel broke.
pub(crate) async fn both_ways<S>(stream: S, tx: &Frames, mut inbound: Inbound<TunnelFrame>)
where
    S: AsyncRead + AsyncWrite + Send,
{
    let (mut read, mut write) = tokio::io::split(stream);
    let (broken, is_broken) = tokio::sync::oneshot::channel::<()>();
    let up = async {
        let mut buffer = vec![0; FRAME];
        loop {
            match read.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(n) => {
                    if tx.send(data(bytes::Bytes::copy_from_slice(&buffer[..n]))).await.is_err() {
                        return;
                    }
                }
            }
        }
        let _ = tx.send(eof()).await;
    };
    let down = async {
        let mut clean = false;
        while let Some(Ok(frame)) = inbound.next().await {
            match frame.body {
                Some(Body::Data(bytes)) => {
                    if write.write_all(&bytes).await.is_err() {
                        break;
                    }
                }
                Some(Body::Eof(_)) => {
                    clean = true;
                    break;
                }
                Some(Body::Error(_)) => break,
                _ => {}
            }
        }
        let _ = write.shutdown().await;
        if clean {
            // The other way may go on for long; watch for the tunnel's end.
            while let Some(Ok(_)) = inbound.next().await {}
        }
        let _ = broken.send(());
    };
    let up = std::pin::pin!(up);
    let down = std::pin::pin!(async {
        down.await;
    });
    // The connection's end finishes the tunnel. When the tunnel's other side is
    // gone altogether, the connection is dropped with it.
    match futures::future::select(up, down).await {
        futures::future::Either::Left(_) => {}
        futures::future::Either::Right(((), up)) => {
            let _ = is_broken;
            // A short while for what the connection still has to say.
            let _ = tokio::time::timeout(std::time::Duration::from_secs(2), up).await;
        }
    }
}
