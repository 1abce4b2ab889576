//! Requests of one connection in the connection's own task.
//!
//! With a task each, every answer wakes the connection and is written by a
//! call of its own. Here everything that was woken runs first, and then the
//! connection writes what has come together.
//!
//! ```text
//!   a turn:  requests that were woken ─► those they woke ─► the connection
//! ```
//! Bounded by the connection's own limit of streams; an answer that waits for
//! the client holds up nothing but itself. Requests that wake themselves again
//! and again run once more each turn, no matter how often they ask.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::future::BoxFuture;
use futures::task::AtomicWaker;
use parking_lot::Mutex;

/// Rounds of requests before the connection gets its turn: what one wakes is
/// in the same turn, unless it goes on for ever.
const ROUNDS: usize = 4;

/// Where a connection puts the requests that it has accepted.
#[derive(Clone, Default)]
pub(crate) struct Together(Arc<Mutex<Vec<BoxFuture<'static, ()>>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Together {
    fn execute(&self, request: F) {
        self.0.lock().push(Box::pin(request));
    }
}

impl Together {
    /// Runs `connection` and its requests until the connection is done.
    pub async fn drive<T>(self, connection: impl Future<Output = T>) -> T {
        let mut connection = pin!(connection);
        let mut requests = Requests::default();
        std::future::poll_fn(move |cx| {
            // What is woken during the turn does not ask for another by itself.
            requests.woken.task.take();
            for _ in 0..ROUNDS {
                if !requests.round() {
                    break;
                }
            }
            if let Poll::Ready(done) = connection.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            // New ones are woken by being added: the next turn is theirs.
            std::mem::take(&mut *self.0.lock()).into_iter().for_each(|request| requests.add(request));
            requests.woken.task.register(cx.waker());
            if !requests.woken.seats.lock().is_empty() {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await
    }
}

/// Seats of requests that were woken, each once.
#[derive(Default)]
struct Woken {
    seats: Mutex<Vec<usize>>,
    task: AtomicWaker,
}

/// Wakes the request in one seat.
struct Seat {
    number: usize,
    queued: AtomicBool,
    woken: Arc<Woken>,
}

impl Seat {
    fn queue(&self) -> bool {
        let news = !self.queued.swap(true, Ordering::AcqRel);
        if news {
            self.woken.seats.lock().push(self.number);
        }
        news
    }
}

impl Wake for Seat {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queue() {
            self.woken.task.wake();
        }
    }
}

struct Request {
    future: BoxFuture<'static, ()>,
    seat: Arc<Seat>,
    waker: Waker,
}

#[derive(Default)]
struct Requests {
    seats: Vec<Option<Request>>,
    free: Vec<usize>,
    woken: Arc<Woken>,
    /// Of the round that runs; kept for its room.
    running: Vec<usize>,
}

impl Requests {
    fn add(&mut self, future: BoxFuture<'static, ()>) {
        let number = self.free.pop().unwrap_or_else(|| {
            self.seats.push(None);
            self.seats.len() - 1
        });
        let seat = Arc::new(Seat { number, queued: AtomicBool::new(false), woken: self.woken.clone() });
        seat.queue();
        self.seats[number] = Some(Request { future, waker: Waker::from(seat.clone()), seat });
    }

    /// Polls each request that was woken; whether there was any.
    fn round(&mut self) -> bool {
        std::mem::swap(&mut self.running, &mut *self.woken.seats.lock());
        for &number in &self.running {
            // A seat that was left and taken again may be polled for its last holder: harmless.
            let Some(request) = &mut self.seats[number] else { continue };
            request.seat.queued.store(false, Ordering::Release);
            let waker = &request.waker;
            if request.future.as_mut().poll(&mut Context::from_waker(waker)).is_ready() {
                self.seats[number] = None;
                self.free.push(number);
            }
        }
        let any = !self.running.is_empty();
        self.running.clear();
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::rt::Executor;
    use tokio::sync::{mpsc, oneshot};

    #[tokio::test]
    async fn what_is_woken_together_runs_before_the_connection_looks_again() {
        let tasks = Together::default();
        let (answers, mut answered) = mpsc::unbounded_channel();
        let (gate, opened): (Vec<_>, Vec<_>) = (0..8).map(|_| oneshot::channel::<()>()).unzip();
        for (n, opened) in opened.into_iter().enumerate() {
            let answers = answers.clone();
            tasks.execute(async move {
                opened.await.unwrap();
                answers.send(n).unwrap();
            });
        }
        // A connection that notes how many answers each of its turns finds.
        let mut turns = Vec::new();
        let mut gate = Some(gate);
        let connection = std::future::poll_fn(|cx| {
            let mut found = 0;
            while let Poll::Ready(Some(_)) = answered.poll_recv(cx) {
                found += 1;
            }
            turns.push(found);
            if turns.iter().sum::<usize>() == 8 {
                return Poll::Ready(());
            }
            // Its second turn: the requests have been polled and wait.
            if turns.len() == 2 {
                gate.take().into_iter().flatten().for_each(|g| g.send(()).unwrap());
            }
            Poll::Pending
        });
        tasks.drive(connection).await;
        assert_eq!(turns, [0, 0, 8]);
    }

    #[tokio::test]
    async fn requests_that_wake_themselves_share_a_turn_with_all_others() {
        let tasks = Together::default();
        let (answers, mut answered) = mpsc::unbounded_channel();
        for n in 0..8 {
            let answers = answers.clone();
            tasks.execute(async move {
                tokio::task::yield_now().await;
                answers.send(n).unwrap();
                loop {
                    tokio::task::yield_now().await;
                }
            });
        }
        let mut turns = Vec::new();
        let connection = std::future::poll_fn(|cx| {
            let mut found = 0;
            while let Poll::Ready(Some(_)) = answered.poll_recv(cx) {
                found += 1;
            }
            turns.push(found);
            if turns.len() == 5 { Poll::Ready(()) } else { Poll::Pending }
        });
        tasks.drive(connection).await;
        assert_eq!(turns.iter().max(), Some(&8), "all in one turn, and the connection had the others: {turns:?}");
    }

    #[tokio::test]
    async fn a_seat_is_used_again_and_the_new_request_runs() {
        let tasks = Together::default();
        let (done, mut ended) = mpsc::unbounded_channel();
        let mut made = 0;
        let (more, sender) = (tasks.clone(), done.clone());
        let connection = std::future::poll_fn(|cx| {
            let mut seen = 0;
            while let Poll::Ready(Some(_)) = ended.poll_recv(cx) {
                seen += 1;
            }
            if made == 0 || seen > 0 {
                made += 1;
                let sender = sender.clone();
                more.execute(async move { sender.send(()).unwrap() });
            }
            if made == 10 { Poll::Ready(()) } else { Poll::Pending }
        });
        let limit = std::time::Duration::from_secs(5);
        tokio::time::timeout(limit, tasks.drive(connection)).await.expect("each runs");
    }
}
