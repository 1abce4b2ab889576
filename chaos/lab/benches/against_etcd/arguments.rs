//! What is asked of a run.

use std::time::Duration;

use anyhow::{Context, bail};

use crate::metrics::{METRICS, Metric};

const HELP: &str = "\
Triarch against etcd 3.7 and 3.5.1, three members each.

  --quick         short rounds, three ratios
  --rounds N      rounds of each system, 1 to 20 (5)
  --seconds N     of each part that is measured, 1 to 120 (3)
  --keys N        keys of 1 KiB that are loaded, 1000 to 4000000 (1000000)
  --only SYSTEM   triarch, etcd-3.7 or etcd-3.5.1 alone: no ratios
  --metric NAME   these alone (may be repeated): no ratios
  --profile       what a put costs, or one of the --metric that is named, layer by
                  layer (needs perf): nothing else";

/// What is run.
#[derive(Clone, Debug)]
pub struct Arguments {
    pub quick: bool,
    pub rounds: usize,
    /// Of each measured part.
    pub part: Duration,
    pub keys: u64,
    pub only: Option<String>,
    /// Empty: all.
    pub metrics: Vec<String>,
    pub profile: bool,
}

impl Arguments {
    /// `None`: only help was wanted, and was given.
    ///
    /// # Errors
    /// What it does not take.
    pub fn parse(mut given: impl Iterator<Item = String>) -> anyhow::Result<Option<Arguments>> {
        let part = Duration::from_secs(3);
        let mut arguments = Arguments {
            quick: false,
            rounds: 5,
            part,
            keys: 1_000_000,
            only: None,
            metrics: Vec::new(),
            profile: false,
        };
        while let Some(argument) = given.next() {
            let mut value = || given.next().with_context(|| format!("{argument} needs a value"));
            let number = |text: String, range: std::ops::RangeInclusive<u64>| {
                let said = format!("{argument}: got {text}, takes {} to {}", range.start(), range.end());
                text.parse().ok().filter(|n| range.contains(n)).context(said)
            };
            match argument.as_str() {
                // What cargo itself passes.
                "--bench" => {}
                "--help" | "-h" => {
                    let names: Vec<&str> = METRICS.iter().map(|m| m.name).collect();
                    println!("{HELP}\n\nMetrics: {}", names.join(", "));
                    return Ok(None);
                }
                "--profile" => arguments.profile = true,
                "--quick" => {
                    arguments.quick = true;
                    arguments.rounds = 3;
                    arguments.part = Duration::from_secs(2);
                }
                "--rounds" => arguments.rounds = number(value()?, 1..=20)? as usize,
                "--seconds" => arguments.part = Duration::from_secs(number(value()?, 1..=120)?),
                "--keys" => arguments.keys = number(value()?, 1_000..=4_000_000)?,
                "--only" => arguments.only = Some(value()?),
                "--metric" => {
                    let name = value()?;
                    if !METRICS.iter().any(|m| m.name == name) {
                        bail!("--metric: got {name}; see --help");
                    }
                    arguments.metrics.push(name);
                }
                other => bail!("{other}: not taken; see --help"),
            }
        }
        Ok(Some(arguments))
    }

    pub fn wants(&self, metric: &Metric) -> bool {
        match &self.metrics[..] {
            [] => metric.quick || !self.quick,
            names => names.iter().any(|n| n == metric.name),
        }
    }
}
