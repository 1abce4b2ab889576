//! Thresholds: when a row of equal answers becomes a result. Pure.

use super::Outcome;

/// What an answer changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Enough successes in a row.
    Passed,
    /// Enough failures in a row.
    Failed,
}

/// Counts one probe's answers.
#[derive(Clone, Debug)]
pub struct Tracker {
    successes: u32,
    failures: u32,
    run: u32,
    last: Option<bool>,
}

impl Tracker {
    pub fn new(successes: u32, failures: u32) -> Tracker {
        Tracker { successes: successes.max(1), failures: failures.max(1), run: 0, last: None }
    }

    /// Takes one answer in; says whether a threshold is reached. It is said
    /// again for each further answer of the same kind.
    pub fn observe(&mut self, outcome: &Outcome) -> Option<Turn> {
        let good = match outcome {
            Outcome::Success => true,
            Outcome::Failure(_) => false,
            Outcome::Unknown(_) => return None,
        };
        self.run = if self.last == Some(good) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(good);
        match good {
            true if self.run >= self.successes => Some(Turn::Passed),
            false if self.run >= self.failures => Some(Turn::Failed),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_row_of_equal_answers_turns_a_result() {
        let (ok, bad) = (Outcome::Success, Outcome::Failure("x".into()));
        let mut t = Tracker::new(2, 3);
        let turns: Vec<_> = [&ok, &ok, &bad, &bad, &ok, &bad, &bad, &bad].map(|o| t.observe(o)).into();
        let expected = [None, Some(Turn::Passed), None, None, None, None, None, Some(Turn::Failed)];
        assert_eq!(turns, expected);
        assert_eq!(t.observe(&Outcome::Unknown("y".into())), None);
        assert_eq!(t.observe(&bad), Some(Turn::Failed), "what could not be probed breaks no row");
    }
}
