//! The last line.

use super::episode::Done;
use super::options::Which;

/// What came of one system's episodes.
pub type Verdict = Done;

impl Done {
    /// An episode that did not come to its end.
    pub fn gave_up(why: &anyhow::Error) -> Done {
        let mut done = Done { episodes: 1, ..Done::default() };
        done.findings.gave_up(format!("{why:#}"));
        done
    }

    /// Another episode.
    pub fn add(&mut self, other: Done) {
        self.findings.join(other.findings);
        self.episodes += other.episodes;
        self.faults += other.faults;
        self.requests += other.requests;
        self.acked += other.acked;
        self.unknown += other.unknown;
        self.events += other.events;
        self.resumed += other.resumed;
        self.hashed += other.hashed;
        self.time += other.time;
    }
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub verdicts: Vec<(Which, Verdict)>,
}

impl Report {
    /// Something was tried, and what must be clean is.
    pub fn good(&self) -> bool {
        self.verdicts
            .iter()
            .all(|(which, v)| v.faults > 0 && v.acked > 0 && (v.findings.is_clean() || !which.must_be_clean()))
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (which, verdict) in &self.verdicts {
            writeln!(f, "{} ({} episodes): {verdict}", which.name(), verdict.episodes)?;
        }
        let line: Vec<String> = self.verdicts.iter().map(|(w, v)| format!("{}={}", w.name(), v.findings)).collect();
        f.write_str(&line.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histories::judge::Findings;
    use triarch_check::Violation;

    fn report(which: Which, found: usize) -> Report {
        let lost = Violation::Unused { revision: 3 };
        let mut findings = Findings::default();
        if found > 0 {
            findings.kinds.insert("wrong-effect", vec![lost; found]);
        }
        Report { verdicts: vec![(which, Done { findings, faults: 1, acked: 9, ..Done::default() })] }
    }

    #[test]
    fn the_last_line_says_what_was_found_and_only_the_old_release_may_have_it() {
        let line = |r: &Report| r.to_string().lines().last().unwrap().to_owned();
        assert_eq!(line(&report(Which::Triarch, 0)), "triarch=clean");
        assert_eq!(line(&report(Which::Etcd351, 2)), "etcd-3.5.1=wrong-effect:2");
        assert!(report(Which::Etcd351, 2).good() && report(Which::Etcd37, 0).good());
        assert!(!report(Which::Etcd37, 1).good() && !report(Which::Triarch, 1).good());
    }

    #[test]
    fn a_run_in_which_nothing_was_hurt_is_no_evidence() {
        let mut idle = report(Which::Triarch, 0);
        idle.verdicts[0].1.faults = 0;
        assert!(!idle.good());
    }

    #[test]
    fn a_system_that_does_not_come_back_is_a_finding() {
        let gone = Done::gave_up(&anyhow::anyhow!("0 writes acknowledged"));
        let report = Report { verdicts: vec![(Which::Triarch, gone)] };
        assert!(!report.good() && report.to_string().ends_with("triarch=gave-up:1"), "{report}");
    }
}
