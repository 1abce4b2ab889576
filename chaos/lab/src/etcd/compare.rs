//! Figures of several systems against each other.
//!
//! A sample is one figure of one round. A ratio sets the median of Triarch's
//! rounds against the better of its peers' medians; one over several samples is
//! their geometric mean.

use std::collections::BTreeMap;

/// Which figures are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    Higher,
    Lower,
}

/// Figures of one system by name, one a round.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    taken: BTreeMap<String, Vec<f64>>,
}

impl Samples {
    pub fn add(&mut self, name: impl Into<String>, figure: f64) {
        self.taken.entry(name.into()).or_default().push(figure);
    }

    pub fn join(&mut self, other: Samples) {
        for (name, mut figures) in other.taken {
            self.taken.entry(name).or_default().append(&mut figures);
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.taken.keys().map(String::as_str)
    }

    pub fn get(&self, name: &str) -> &[f64] {
        self.taken.get(name).map_or(&[], Vec::as_slice)
    }

    pub fn median(&self, name: &str) -> Option<f64> {
        median(self.get(name))
    }
}

/// The middle one, of an even number the mean of the middle two.
pub fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// How far `own` is ahead of the best of `peers` in all of `names`, above 1 when
/// it is; `None` when a figure is missing or not positive.
pub fn ratio(own: &Samples, peers: &[&Samples], names: &[&str], better: Better) -> Option<f64> {
    let mut product = 1.0;
    for name in names {
        let own = own.median(name)?;
        let theirs = peers.iter().filter_map(|p| p.median(name));
        let best = match better {
            Better::Higher => theirs.max_by(f64::total_cmp)?,
            Better::Lower => theirs.min_by(f64::total_cmp)?,
        };
        let one = if better == Better::Higher { own / best } else { best / own };
        if !one.is_finite() || one <= 0.0 {
            return None;
        }
        product *= one;
    }
    (!names.is_empty()).then(|| product.powf(1.0 / names.len() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(figures: &[(&str, &[f64])]) -> Samples {
        let mut samples = Samples::default();
        for (name, figures) in figures {
            figures.iter().for_each(|f| samples.add(*name, *f));
        }
        samples
    }

    #[test]
    fn a_ratio_is_of_medians_against_the_better_peer() {
        let own = samples(&[("puts", &[30.0, 10.0, 20.0]), ("us", &[50.0])]);
        let (one, other) =
            (samples(&[("puts", &[5.0]), ("us", &[100.0])]), samples(&[("puts", &[10.0]), ("us", &[200.0])]));
        assert_eq!(ratio(&own, &[&one, &other], &["puts"], Better::Higher), Some(2.0));
        assert_eq!(ratio(&own, &[&one, &other], &["us"], Better::Lower), Some(2.0));
    }

    #[test]
    fn several_samples_make_a_geometric_mean_and_a_missing_one_makes_none() {
        let own = samples(&[("a", &[8.0]), ("b", &[2.0])]);
        let peer = samples(&[("a", &[1.0]), ("b", &[1.0])]);
        assert_eq!(ratio(&own, &[&peer], &["a", "b"], Better::Higher), Some(4.0));
        assert_eq!(ratio(&own, &[&peer], &["a", "c"], Better::Higher), None);
        assert_eq!(ratio(&own, &[], &["a"], Better::Higher), None);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}
