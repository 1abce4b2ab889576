//! What a history must be, checked after the fact.
//!
//! ```text
//!   clients' operations ─┬─► revisions  writes have an order: is it the real one?
//!                        ├─► search     the same without trusting revisions
//!                        └─► acks       is what was promised still there?
//!   watchers' events ────┴─► watches    ordered, unique, gapless, truthful
//! ```
//! `transactions` is the same for a store whose revisions are of transactions
//! over several keys, as etcd's are.
//!
//! Owns no clock and does no IO: a history is a value. Times are nanoseconds
//! on one clock of the caller's. Invariant: a checker never passes a history
//! that it has not looked at in full; what it cannot decide inside its bound
//! it calls undecided.

pub mod acks;
pub mod history;
pub mod revisions;
pub mod search;
pub mod transactions;
pub mod watches;

pub use acks::{FinalState, check_acks};
pub use history::{Action, Operation, Outcome, Violation};
pub use watches::{Change, ChangeKind, Truth, WatchHistory, check_watch};
