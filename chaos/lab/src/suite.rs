//! Tests that share a cluster: run one after the other, reported the way
//! cargo's own are, so that `./test` counts them alike.

use std::fmt::Display;
use std::time::Instant;

/// How many went which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Suite {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Suite {
    /// One test's end.
    pub fn record(&mut self, name: &str, began: Instant, outcome: Result<(), String>) {
        let took = began.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => {
                self.passed += 1;
                println!("test {name} ... ok ({took:.1} s)");
            }
            Err(why) => {
                self.failed += 1;
                println!("test {name} ... FAILED ({took:.1} s)\n    {why}");
            }
        }
    }

    /// A test that cannot be run here.
    pub fn skip(&mut self, name: &str, why: impl Display) {
        self.skipped += 1;
        println!("test {name} ... ignored, {why}");
    }

    /// Prints the sum; the process's exit code.
    pub fn finish(&self) -> std::process::ExitCode {
        let word = if self.failed == 0 { "ok" } else { "FAILED" };
        println!("\n{}", self.summary(word));
        if self.failed == 0 { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
    }

    fn summary(&self, word: &str) -> String {
        let Suite { passed, failed, skipped } = self;
        format!("test result: {word}. {passed} passed; {failed} failed; {skipped} ignored; 0 measured; 0 filtered out")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_is_counted_once() {
        let mut suite = Suite::default();
        suite.record("a", Instant::now(), Ok(()));
        suite.record("b", Instant::now(), Err("because".into()));
        suite.skip("c", "no containers here");
        assert_eq!(suite, Suite { passed: 1, failed: 1, skipped: 1 });
        assert!(suite.summary("FAILED").contains("1 passed; 1 failed; 1 ignored"));
    }
}
