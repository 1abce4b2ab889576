//! The last line.

use crate::gaps::percentile;

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub kills: u32,
    pub acked: u64,
    /// Fewest that would do.
    pub needed: u64,
    pub lost: usize,
    pub violations: usize,
    pub watch_violations: usize,
    /// Nanoseconds, one a fault.
    pub gaps: Vec<u64>,
    pub elections: u64,
    /// Commands of a client that retries as kubectl does.
    pub failed_requests: usize,
    /// From each fault until a leader's controllers and scheduler were seen at
    /// work, nanoseconds.
    pub next_binds: Vec<u64>,
    /// Elections after the cluster had settled: by one that came back.
    pub disturbed: u64,
    /// Watches that broke at replicas that were not hurt.
    pub watch_breaks: usize,
}

impl Report {
    /// Nothing lost, nothing violated, and enough done to tell.
    pub fn good(&self) -> bool {
        self.lost == 0
            && self.violations == 0
            && self.watch_violations == 0
            && self.disturbed == 0
            && self.watch_breaks == 0
            && self.acked >= self.needed
            && self.gaps.len() == self.kills as usize
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (mut gaps, mut binds) = (self.gaps.clone(), self.next_binds.clone());
        gaps.sort_unstable();
        binds.sort_unstable();
        let ms = |percent| percentile(&gaps, percent).div_ceil(1_000_000);
        write!(
            f,
            "kills={} acked={} lost={} violations={} watch_violations={} gap_p50_ms={} gap_p99_ms={} gap_max_ms={} elections={} \
             failed_requests={} next_bind_p99_ms={} disturbed={} watch_breaks={}",
            self.gaps.len(),
            self.acked,
            self.lost,
            self.violations,
            self.watch_violations,
            ms(50),
            ms(99),
            ms(100),
            self.elections,
            self.failed_requests,
            percentile(&binds, 99).div_ceil(1_000_000),
            self.disturbed,
            self.watch_breaks
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_exact_and_any_loss_is_bad() {
        let gaps = vec![12_000_001, 40_000_000];
        let report = Report {
            kills: 2,
            acked: 1000,
            needed: 1000,
            gaps,
            elections: 3,
            next_binds: vec![70_000_000],
            ..Report::default()
        };
        let line = "kills=2 acked=1000 lost=0 violations=0 watch_violations=0 \
                    gap_p50_ms=13 gap_p99_ms=40 gap_max_ms=40 elections=3 \
                    failed_requests=0 next_bind_p99_ms=70 disturbed=0 watch_breaks=0";
        assert_eq!(report.to_string(), line);
        assert!(report.good());
        assert!(!Report { lost: 1, ..report.clone() }.good());
        assert!(!Report { violations: 1, ..report.clone() }.good());
        assert!(!Report { watch_violations: 1, ..report.clone() }.good());
        assert!(!Report { disturbed: 1, ..report.clone() }.good());
        assert!(!Report { watch_breaks: 1, ..report.clone() }.good());
        assert!(!Report { acked: 999, ..report.clone() }.good());
        assert!(!Report { kills: 3, ..report }.good());
    }
}
