//! Asking whoever leads, again and again until a leader has answered.

use std::future::Future;
use std::time::Duration;

use futures::FutureExt;
use triarch_mvcc::CommitError;

use crate::shared::Shared;
use crate::types::NodeId;

/// A leader that does not answer as one yet, or is not reached, is asked again after this.
const RETRY: Duration = Duration::from_millis(5);

/// Has `ask` ask the leader, or the next one as soon as the leadership changes. It
/// gives `None` where the replica it asked was not reached or does not lead.
///
/// Fails as `ask` does, and with [`CommitError::NoLeader`] when nobody has
/// answered within `no_leader_hold`.
pub(crate) async fn at_the_leader<T, Fut>(shared: &Shared, ask: impl Fn(NodeId) -> Fut) -> Result<T, CommitError>
where
    Fut: Future<Output = Result<Option<T>, CommitError>>,
{
    let asking = async {
        loop {
            let view = shared.leadership.view();
            let answer = async {
                match view.leader {
                    Some(leader) => ask(leader).await,
                    None => std::future::pending().await,
                }
            };
            futures::select_biased! {
                answer = answer.fuse() => if let Some(answer) = answer? {
                    return Ok(answer);
                },
                _ = shared.leadership.await_leader_change(view).fuse() => continue,
            }
            futures::select_biased! {
                _ = shared.leadership.await_leader_change(view).fuse() => {}
                () = shared.env.sleep(RETRY).fuse() => {}
            }
        }
    };
    let bound = shared.config.timers.no_leader_hold;
    shared.env.timeout(bound, asking).await.unwrap_or(Err(CommitError::NoLeader(bound)))
}
