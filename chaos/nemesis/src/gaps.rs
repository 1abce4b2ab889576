//! How long nothing was acknowledged.

/// A silence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// Nanoseconds.
    pub length: u64,
    /// How long after the fault it began, nanoseconds.
    pub after: u64,
}

/// The longest time without an acknowledgement from each fault up to the next
/// (or `end`). `acks` ascend, as do `faults`.
pub fn after_faults(acks: &[u64], faults: &[u64], end: u64) -> Vec<Gap> {
    let mut gaps = Vec::with_capacity(faults.len());
    for (i, from) in faults.iter().enumerate() {
        let to = faults.get(i + 1).copied().unwrap_or(end);
        let within = &acks[acks.partition_point(|a| a < from)..acks.partition_point(|a| *a < to)];
        let mut last = *from;
        let mut longest = Gap::default();
        for at in within.iter().chain([&to]) {
            if at - last > longest.length {
                longest = Gap { length: at - last, after: last - from };
            }
            last = *at;
        }
        gaps.push(longest);
    }
    gaps
}

/// The value that `percent` of the sorted values do not exceed (nearest rank).
pub fn percentile(sorted: &[u64], percent: u64) -> u64 {
    let rank = (sorted.len() as u64 * percent).div_ceil(100).max(1) as usize;
    sorted.get(rank - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_counts_from_the_fault_and_not_from_the_ack_before_it() {
        assert_eq!(after_faults(&[10, 90, 130, 140], &[100], 150), [Gap { length: 30, after: 0 }]);
    }

    #[test]
    fn a_later_and_longer_silence_is_the_gap_up_to_the_next_fault() {
        let gaps = after_faults(&[110, 160, 170, 201, 290], &[100, 200], 300);
        assert_eq!(gaps, [Gap { length: 50, after: 10 }, Gap { length: 89, after: 1 }]);
        assert_eq!(after_faults(&[], &[100], 300), [Gap { length: 200, after: 0 }]);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sorted: Vec<u64> = (1..=20).collect();
        assert_eq!((percentile(&sorted, 50), percentile(&sorted, 99), percentile(&sorted, 100)), (10, 20, 20));
        assert_eq!(percentile(&[], 50), 0);
    }
}
