//! Cancellation: a tree of scopes, each gone when its parent is.

use std::future::Future;

use tokio_util::sync::CancellationToken;

/// A cancellation scope. Everything leader-only is a child of the scope of its
/// epoch, so that nothing of it outlives the epoch and no list of things to
/// stop is ever written by hand.
#[derive(Clone, Debug, Default)]
pub struct Scope(CancellationToken);

impl Scope {
    /// A root scope.
    pub fn new() -> Scope {
        Scope::default()
    }

    /// A scope that ends with this one, or earlier.
    pub fn child(&self) -> Scope {
        Scope(self.0.child_token())
    }

    /// Ends this scope and all its children. Idempotent.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Resolves when the scope has ended.
    pub async fn cancelled(&self) {
        self.0.cancelled().await;
    }

    /// Runs `fut` until it is done (`Some`) or the scope ends (`None`, and the
    /// future is dropped where it stood).
    pub async fn run<T>(&self, fut: impl Future<Output = T>) -> Option<T> {
        self.0.run_until_cancelled(fut).await
    }
}
