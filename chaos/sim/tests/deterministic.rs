//! One seed is one run: what `--trace` prints is the same each time, down to the
//! digest of every poll in its last line.

use triarch_sim::runner;
use triarch_sim::settings::Stack;

#[test]
fn a_seed_prints_the_same_trace_twice_with_everything_in_it() {
    let seed = 11;
    let (a, b) = (runner::one(seed, Stack::Whole, true), runner::one(seed, Stack::Whole, true));
    let differs = a.trace.iter().zip(&b.trace).position(|(x, y)| x != y);
    assert_eq!(differs, None, "seed {seed}: {:?} {:?}", a.trace[differs.unwrap_or(0)], b.trace[differs.unwrap_or(0)]);
    assert_eq!(a.trace.len(), b.trace.len());
    // The store, its clients, faults, the control plane and the nodes are all in it.
    let told = |what: &str| a.trace.iter().any(|l| l.contains(what));
    for what in ["register-client-0 r", "is killed", "user r", "starts its agent", "the Deployment is what was asked"] {
        assert!(told(what), "seed {seed} says nothing of {what:?}");
    }
    assert!(a.trace.last().is_some_and(|l| l.starts_with("steps=")));
    assert_eq!(a.counts.violations, []);
}
