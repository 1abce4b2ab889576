//! Requests of one connection in the connection's own task.
//!
//! With a task each, every answer wakes the connection and is written by a
//! call of its own. Here everything that was woken runs first, and then the
//! connection writes what has come together.
//!
//! Bounded by the connection's own limit of streams; an answer that waits for
//! the client holds up nothing but itself.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;

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
        let mut requests = FuturesUnordered::new();
        std::future::poll_fn(move |cx| {
            loop {
                while let Poll::Ready(Some(())) = requests.poll_next_unpin(cx) {}
                if let Poll::Ready(done) = Pin::as_mut(&mut connection).poll(cx) {
                    return Poll::Ready(done);
                }
                let accepted = std::mem::take(&mut *self.0.lock());
                if accepted.is_empty() {
                    return Poll::Pending;
                }
                requests.extend(accepted);
            }
        })
        .await
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
}
