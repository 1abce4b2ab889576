//! Which runs make the checkpoint, and when some of them are merged. Pure.
//!
//! ```text
//!   0────────────────9  10──12  13  14      a run a change; together they are the state
//!   └ everything ────┘  └ changes ────┘
//! ```

use crate::codec::Span;

/// Runs of a kind that are merged into one.
const FAN: usize = 8;
/// Runs up to this are of the smallest kind, bytes; each kind is [`FAN`] times the one before.
const SMALLEST: u64 = 4 << 10;
/// Changes are merged into everything when they outweigh it, and this, bytes.
const OUTWEIGHS: u64 = 16 << 20;

/// The end of the chain is not reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The first advance that no run holds.
    pub at: u64,
}

/// The runs that lead from 0 to the newest, of all that are there: of several
/// that begin at the same place the longest, since the others went into it.
pub(crate) fn chain(mut there: Vec<Span>) -> Result<Vec<Span>, Gap> {
    there.sort_unstable();
    let Some(newest) = there.iter().map(|s| s.to).max() else { return Ok(Vec::new()) };
    let mut out: Vec<Span> = Vec::new();
    let mut at = 0;
    while at <= newest {
        let next = there.iter().rev().find(|s| s.from == at).ok_or(Gap { at })?;
        out.push(*next);
        at = next.to + 1;
    }
    Ok(out)
}

fn kind(bytes: u64) -> u32 {
    (bytes.max(SMALLEST) / SMALLEST).ilog(FAN as u64)
}

/// From which run on all are to be merged into one, given the bytes of each,
/// the oldest first. Each byte is so written again a few times at most, and
/// the disk holds about twice what there is.
pub(crate) fn merge_from(bytes: &[u64]) -> Option<usize> {
    let (everything, changes) = bytes.split_first()?;
    if changes.iter().sum::<u64>() > OUTWEIGHS.max(*everything) {
        return Some(0);
    }
    let largest = changes.iter().map(|b| kind(*b)).max()?;
    (0..=largest).rev().find_map(|most| {
        let smaller = changes.iter().rev().take_while(|b| kind(**b) <= most);
        let (count, alike) = smaller.fold((0, 0), |(n, alike), b| (n + 1, alike + usize::from(kind(*b) == most)));
        (alike >= FAN).then(|| bytes.len() - count)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(of: &[(u64, u64)]) -> Vec<Span> {
        of.iter().map(|(from, to)| Span { from: *from, to: *to }).collect()
    }

    #[test]
    fn a_chain_takes_the_longest_run_from_each_place() {
        assert_eq!(chain(Vec::new()), Ok(Vec::new()));
        // 3-5 was merged of 3-3, 4-4 and 5-5; of these two are still there.
        let there = spans(&[(6, 6), (0, 2), (3, 3), (3, 5), (5, 5)]);
        assert_eq!(chain(there), Ok(spans(&[(0, 2), (3, 5), (6, 6)])));
        // A new content, and what it replaced.
        assert_eq!(chain(spans(&[(0, 2), (3, 3), (0, 4)])), Ok(spans(&[(0, 4)])));
    }

    #[test]
    fn a_chain_that_does_not_reach_the_newest_run_says_where_it_ends() {
        assert_eq!(chain(spans(&[(0, 2), (4, 4)])), Err(Gap { at: 3 }));
        assert_eq!(chain(spans(&[(1, 1)])), Err(Gap { at: 0 }));
    }

    #[test]
    fn small_changes_are_merged_among_themselves_and_everything_only_when_they_outweigh_it() {
        let (big, small) = (1 << 30, 1 << 10);
        assert_eq!(merge_from(&[]), None);
        assert_eq!(merge_from(&[big]), None);
        assert_eq!(merge_from(&[[big].as_slice(), &[small; 7]].concat()), None);
        assert_eq!(merge_from(&[[big].as_slice(), &[small; 8]].concat()), Some(1));
        assert_eq!(merge_from(&[[big, 1 << 20].as_slice(), &[small; 8]].concat()), Some(2), "not the large one");
        let two_kinds = [[big].as_slice(), &[1 << 20; 8], &[small; 3]].concat();
        assert_eq!(merge_from(&two_kinds), Some(1), "what is smaller and newer goes along");
        assert_eq!(merge_from(&[1 << 20, 15 << 20]), None);
        assert_eq!(merge_from(&[1 << 20, 15 << 20, 2 << 20]), Some(0));
        assert_eq!(merge_from(&[big, 600 << 20, 500 << 20]), Some(0));
    }

    /// A long life of equal changes, counted: how often a byte is written, how
    /// many runs there are at most, and how much more the disk holds.
    #[test]
    fn a_byte_is_written_a_few_times_and_there_are_never_many_runs() {
        for (live, change) in [(1u64 << 30, 1u64 << 20), (1 << 20, 1 << 10), (64 << 20, 600 << 10)] {
            let (mut runs, mut written, mut most, mut held) = (vec![live], 0, 0, 0);
            let rounds = 20_000;
            for _ in 0..rounds {
                runs.push(change);
                written += change;
                if let Some(from) = merge_from(&runs) {
                    // The worst case: each change is of other objects, until everything is one.
                    let merged = if from == 0 { live } else { runs[from..].iter().sum() };
                    written += merged;
                    runs.truncate(from);
                    runs.push(merged);
                }
                most = most.max(runs.len());
                held = held.max(runs.iter().sum::<u64>());
            }
            let times = written as f64 / (rounds * change) as f64;
            assert!(times < 9.0, "{live} {change}: {times} times");
            assert!(most < 48, "{live} {change}: {most} runs");
            assert!(held <= live + live.max(OUTWEIGHS) + change, "{live} {change}: {held} bytes");
        }
    }
}
