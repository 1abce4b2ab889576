//! One error for the lab: the step that failed, and why.

/// What could not be done. `step` is a short stable word (`build`, `replicas`,
/// `containerd`, …): it is what `failed step=… reason=…` shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {reason}")]
pub struct LabError {
    pub step: &'static str,
    pub reason: String,
}

pub type Result<T, E = LabError> = std::result::Result<T, E>;

impl LabError {
    pub fn new(step: &'static str, reason: impl ToString) -> LabError {
        LabError { step, reason: reason.to_string() }
    }
}

/// Gives an error of any kind its step and what was being done.
pub trait Context<T> {
    /// # Errors
    /// The same failure, named.
    fn step(self, step: &'static str, doing: impl std::fmt::Display) -> Result<T>;
}

impl<T, E: std::fmt::Display> Context<T> for std::result::Result<T, E> {
    fn step(self, step: &'static str, doing: impl std::fmt::Display) -> Result<T> {
        self.map_err(|e| LabError::new(step, format!("{doing}: {e}")))
    }
}
