//! Bytes both ways between a tunnel and a connection, each way ending by itself.

use std::time::Duration;

use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use triarch_env::Env;
use triarch_rpc::node::TunnelFrame;
use triarch_rpc::node::tunnel_frame::Body;

use super::{FRAME, Frames, data, eof};
use crate::session::Inbound;

/// What either side still has to say once the other has ended.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(2);

/// Copies until the connection has ended, or the tunnel's other side is gone.
pub(crate) async fn both_ways<S>(env: &Env, stream: S, tx: &Frames, mut inbound: Inbound<TunnelFrame>)
where
    S: AsyncRead + AsyncWrite + Send,
{
    let (mut read, mut write) = tokio::io::split(stream);
    let up = std::pin::pin!(async {
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
    });
    let down = std::pin::pin!(async {
        let mut ended = false;
        while let Some(Ok(frame)) = inbound.next().await {
            let over = match frame.body {
                Some(Body::Data(bytes)) if !ended => write.write_all(&bytes).await.is_err(),
                // The other way may go on for long: only ours has ended.
                Some(Body::Eof(_)) => {
                    ended = true;
                    write.shutdown().await.is_err()
                }
                Some(Body::Error(_)) => true,
                _ => false,
            };
            if over {
                break;
            }
        }
        let _ = write.shutdown().await;
    });
    // Whichever way ends first, the other has a moment to end by itself: a
    // stream that is dropped while its last frames are under way takes them along.
    match futures::future::select(up, down).await {
        futures::future::Either::Left(((), down)) => drop(env.timeout(LAST_WORDS, down).await),
        futures::future::Either::Right(((), up)) => drop(env.timeout(LAST_WORDS, up).await),
    }
}
