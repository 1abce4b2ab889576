//! Tests that share a cluster: run one after the other, reported the way
//! cargo's own are, so that `./test` counts them alike.

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Instant;

use futures::future::LocalBoxFuture;
use tempfile::TempDir;

/// Why a test failed, or, behind [`MISSING`], why it cannot be made here.
pub type Outcome = Result<(), String>;

/// A test of a suite whose tests share a `W`.
pub type Test<W> = (&'static str, fn(&mut W) -> LocalBoxFuture<'_, Outcome>);

/// A test that needs what this machine does not have begins its reason with this; it is skipped.
pub const MISSING: &str = "missing: ";

/// A table of [`Test`]s, a line each: `what_it_holds = path::to::function;`
#[macro_export]
macro_rules! suite_tests {
    ($($name:ident = $path:path;)*) => {
        &[$((stringify!($name), |shared| futures::FutureExt::boxed_local($path(shared)))),*]
    };
}

/// How many went which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Suite {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl Suite {
    /// Runs a whole suite, which has a folder of its own: kept, and named, when a test fails.
    pub fn main(run: impl AsyncFnOnce(&mut Suite, &TempDir)) -> ExitCode {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let dir = tempfile::Builder::new().prefix("triarch-test-").tempdir().expect("a folder");
            let mut suite = Suite::default();
            run(&mut suite, &dir).await;
            if suite.failed > 0 {
                println!("logs are kept in {}", dir.keep().join("logs").display());
            }
            suite.finish()
        })
    }

    /// Runs the tests one after the other, or, where the environment's variable `only` has parts of
    /// names (`part,part`), those with such a name. `after_failure` makes the next one's ground good.
    pub async fn run<W>(
        &mut self,
        tests: &[Test<W>],
        only: &str,
        shared: &mut W,
        mut after_failure: impl AsyncFnMut(&mut W),
    ) {
        let only = std::env::var(only).unwrap_or_default();
        for (name, test) in tests.iter().filter(|t| only.is_empty() || only.split(',').any(|part| t.0.contains(part))) {
            let began = Instant::now();
            match test(shared).await {
                Err(why) if why.starts_with(MISSING) => self.skip(name, why),
                outcome => {
                    let failed = outcome.is_err();
                    self.record(name, began, outcome);
                    if failed {
                        after_failure(shared).await;
                    }
                }
            }
        }
    }

    /// One test's end.
    pub fn record(&mut self, name: &str, began: Instant, outcome: Outcome) {
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
    fn finish(&self) -> ExitCode {
        let word = if self.failed == 0 { "ok" } else { "FAILED" };
        println!("\n{}", self.summary(word));
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn summary(&self, word: &str) -> String {
        let Suite { passed, failed, skipped } = self;
        format!("test result: {word}. {passed} passed; {failed} failed; {skipped} ignored; 0 measured; 0 filtered out")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn good(_: &mut u32) -> Outcome {
        Ok(())
    }

    async fn bad(_: &mut u32) -> Outcome {
        Err("because".into())
    }

    async fn impossible(_: &mut u32) -> Outcome {
        Err(format!("{MISSING}a tool"))
    }

    #[tokio::test]
    async fn what_lacks_a_tool_is_skipped_and_after_each_failure_the_ground_is_made_good() {
        let tests: &[Test<u32>] = crate::suite_tests! { a = good; b = bad; c = impossible; d = bad; };
        let (mut suite, mut repairs) = (Suite::default(), 0);
        suite.run(tests, "TRIARCH_NO_SUCH_VARIABLE", &mut repairs, async |repairs| *repairs += 1).await;
        assert_eq!((suite, repairs), (Suite { passed: 1, failed: 2, skipped: 1 }, 2));
    }

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
