//! What a connection writes in one turn goes to its socket in one piece.
//!
//! h2 hands every frame of some size to the socket by itself, so a connection
//! with a thousand watches would make a thousand writes for one event. Here
//! writes are held back until the connection has nothing more to do, and then
//! leave together: one call, and one TLS record where there were many.
//!
//! Nothing waits for more to come: a turn ends when the connection's task does.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Held back at most, bytes; what is larger by itself is not copied.
const HELD: usize = 64 * 1024;
/// A buffer that has grown past this is given back after it was written, bytes.
const KEPT: usize = 8 * 1024;

/// The socket, shared by the connection and by the turns that end its writes.
pub(crate) struct Held<S>(Arc<Mutex<State<S>>>);

struct State<S> {
    socket: S,
    held: Vec<u8>,
    /// Of `held`, what the socket has taken.
    written: usize,
    /// The socket has bytes that it was not asked to flush: TLS keeps some of
    /// what it took while the network takes no more.
    unflushed: bool,
    /// Somebody ends the turns. Without, writes go through.
    turns: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Held<S> {
    pub fn new(socket: S) -> Held<S> {
        Held(Arc::new(Mutex::new(State { socket, held: Vec::new(), written: 0, unflushed: false, turns: false })))
    }

    /// The end of the turns of whoever writes to this socket.
    pub fn turns(&self) -> Turns<S> {
        self.0.lock().turns = true;
        Turns(self.0.clone())
    }
}

impl<S: AsyncWrite + Unpin> State<S> {
    /// Everything held is with the socket, and the socket was flushed.
    fn poll_through(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.held.len() {
            match ready!(Pin::new(&mut self.socket).poll_write(cx, &self.held[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.written += n,
            }
            self.unflushed = true;
        }
        if self.written > 0 {
            self.held.clear();
            self.held.shrink_to(KEPT);
            self.written = 0;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether `more` bytes are to be held; makes room for them first.
    fn poll_hold(&mut self, cx: &mut Context<'_>, more: usize) -> Poll<io::Result<bool>> {
        if self.turns && self.held.len() + more <= HELD {
            return Poll::Ready(Ok(true));
        }
        ready!(self.poll_through(cx))?;
        Poll::Ready(Ok(self.turns && more <= HELD))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().socket).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let state = &mut *self.0.lock();
        if ready!(state.poll_hold(cx, buf.len()))? {
            state.held.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        state.unflushed = true;
        Pin::new(&mut state.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let state = &mut *self.0.lock();
        let all = bufs.iter().map(|b| b.len()).sum();
        if ready!(state.poll_hold(cx, all))? {
            bufs.iter().for_each(|b| state.held.extend_from_slice(b));
            return Poll::Ready(Ok(all));
        }
        state.unflushed = true;
        Pin::new(&mut state.socket).poll_write_vectored(cx, bufs)
    }

    /// Pieces are put together here, whatever the socket can do.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.0.lock();
        if state.turns {
            return Poll::Ready(Ok(()));
        }
        state.poll_through(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.0.lock();
        ready!(state.poll_through(cx))?;
        Pin::new(&mut state.socket).poll_shutdown(cx)
    }
}

/// Ends the turns of a connection. When it is dropped, or the connection is
/// done, the socket writes through: an upgraded connection lives on without.
pub(crate) struct Turns<S>(Arc<Mutex<State<S>>>);

impl<S> Drop for Turns<S> {
    fn drop(&mut self) {
        self.0.lock().turns = false;
    }
}

impl<S: AsyncWrite + Unpin> Turns<S> {
    /// Runs `connection`; what it wrote leaves whenever it has to wait, and
    /// before it is done.
    ///
    /// # Errors
    /// The connection's own, and the socket's.
    pub async fn drive<E: From<io::Error>>(self, connection: impl Future<Output = Result<(), E>>) -> Result<(), E> {
        let mut connection = pin!(connection);
        let mut done = None;
        std::future::poll_fn(|cx| {
            if done.is_none()
                && let Poll::Ready(result) = connection.as_mut().poll(cx)
            {
                done = Some(result);
            }
            // A socket that takes no more wakes this task; the connection goes on meanwhile,
            // within what may be held.
            let mut state = self.0.lock();
            match state.poll_through(cx) {
                Poll::Ready(Err(e)) => Poll::Ready(done.take().filter(Result::is_err).unwrap_or(Err(e.into()))),
                Poll::Ready(Ok(())) => {
                    // Not a byte between the last turn and the first write without.
                    state.turns = done.is_none();
                    done.take().map_or(Poll::Pending, Poll::Ready)
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Counts what reaches the socket; takes `room` bytes until it is given more.
    struct Socket {
        pieces: Arc<Mutex<Vec<Vec<u8>>>>,
        room: Arc<Mutex<usize>>,
        flushed: Arc<Mutex<usize>>,
    }

    impl AsyncRead for Socket {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Socket {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let mut room = self.room.lock();
            let n = buf.len().min(*room);
            if n == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            *room -= n;
            self.pieces.lock().push(buf[..n].to_vec());
            Poll::Ready(Ok(n))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            *self.flushed.lock() = self.pieces.lock().concat().len();
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn held(room: usize) -> (Held<Socket>, Arc<Mutex<Vec<Vec<u8>>>>, Arc<Mutex<usize>>) {
        let (pieces, room) = (Arc::default(), Arc::new(Mutex::new(room)));
        let flushed = Arc::default();
        (Held::new(Socket { pieces: Arc::clone(&pieces), room: room.clone(), flushed }), pieces, room)
    }

    #[tokio::test]
    async fn what_is_written_and_flushed_in_one_turn_leaves_in_one_piece() {
        let (mut socket, pieces, _) = held(usize::MAX);
        let turns = socket.turns();
        let connection = async {
            for turn in ["ab", "cd"] {
                for piece in turn.as_bytes().chunks(1) {
                    socket.write_all(piece).await?;
                    socket.flush().await?;
                }
                tokio::task::yield_now().await;
            }
            io::Result::Ok(())
        };
        turns.drive(connection).await.unwrap();
        assert_eq!(*pieces.lock(), [b"ab".to_vec(), b"cd".to_vec()]);
    }

    #[tokio::test]
    async fn a_connection_is_done_only_when_its_last_words_are_with_the_socket() {
        let (mut socket, pieces, room) = held(3);
        let turns = socket.turns();
        let connection = async {
            socket.write_all(b"goodbye").await?;
            io::Result::Ok(())
        };
        let more = async {
            tokio::task::yield_now().await;
            assert_eq!(pieces.lock().concat(), b"goo");
            *room.lock() = 100;
        };
        let (done, ()) = tokio::join!(turns.drive(connection), more);
        done.unwrap();
        assert_eq!(pieces.lock().concat(), b"goodbye");
    }

    #[tokio::test]
    async fn who_writes_more_than_may_be_held_waits_for_the_socket_and_keeps_the_order() {
        let (mut socket, pieces, room) = held(HELD);
        let turns = socket.turns();
        let (small, large) = (vec![b's'; HELD], vec![b'l'; HELD + 1]);
        let connection = async {
            socket.write_all(&small).await?;
            socket.write_all(b"x").await?;
            socket.write_all(&large).await?;
            io::Result::Ok(())
        };
        let more = async {
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
            assert_eq!(pieces.lock().concat().len(), HELD, "no more than the socket takes");
            *room.lock() = usize::MAX;
        };
        let (done, ()) = tokio::join!(turns.drive(connection), more);
        done.unwrap();
        assert_eq!(pieces.lock().concat(), [small, b"x".to_vec(), large].concat());
    }

    /// TLS may have taken more than it has sent.
    #[tokio::test]
    async fn what_was_too_large_to_be_held_is_flushed_at_the_end_of_the_turn_as_well() {
        let (mut socket, _, _) = held(usize::MAX);
        let (turns, flushed) = (socket.turns(), socket.0.lock().socket.flushed.clone());
        let large = vec![b'l'; HELD + 1];
        let connection = async {
            socket.write_all(&large).await?;
            std::future::pending::<io::Result<()>>().await
        };
        let mut driven = pin!(turns.drive(connection));
        assert!(futures::poll!(driven.as_mut()).is_pending());
        assert_eq!(*flushed.lock(), HELD + 1);
    }

    #[tokio::test]
    async fn a_socket_that_outlives_its_turns_writes_through() {
        let (mut socket, pieces, _) = held(usize::MAX);
        let turns = socket.turns();
        turns.drive(async { io::Result::Ok(()) }).await.unwrap();
        socket.write_all(b"a").await.unwrap();
        assert_eq!(*pieces.lock(), [b"a".to_vec()]);
    }

    #[tokio::test]
    async fn a_broken_socket_ends_the_connection() {
        let (here, there) = tokio::io::duplex(8);
        let mut socket = Held::new(here);
        let turns = socket.turns();
        drop(there);
        let connection = async {
            socket.write_all(b"lost").await?;
            std::future::pending::<io::Result<()>>().await
        };
        let ended = tokio::time::timeout(std::time::Duration::from_secs(5), turns.drive(connection)).await;
        assert!(ended.expect("it ends").is_err());
    }

    #[tokio::test]
    async fn reading_is_not_held() {
        let (here, mut there) = tokio::io::duplex(64);
        let mut socket = Held::new(here);
        let turns = socket.turns();
        let connection = async {
            let mut word = [0; 4];
            socket.read_exact(&mut word).await?;
            socket.write_all(&word).await?;
            io::Result::Ok(())
        };
        let other = async {
            there.write_all(b"echo").await.unwrap();
            let mut word = [0; 4];
            there.read_exact(&mut word).await.unwrap();
            assert_eq!(&word, b"echo");
        };
        let (done, ()) = tokio::join!(turns.drive(connection), other);
        done.unwrap();
    }
}
