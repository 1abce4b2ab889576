//! What is printed.

use comfy_table::{CellAlignment, Table, presets};
use triarch_lab::etcd::compare::{Better, Samples, ratio};

/// A ratio of the last line: its name, the samples that it is of, which way
/// round, and whether `--quick` has it.
const RATIOS: &[(&str, &[&str], Better, bool)] = &[
    ("puts_ratio", &["puts_64_256", "puts_64_1024", "puts_256_256", "puts_256_1024"], Better::Higher, true),
    ("create_ratio", &["create_64_256", "create_64_1024", "create_256_256", "create_256_1024"], Better::Higher, false),
    ("serial_p50_ratio", &["serial_p50_us"], Better::Lower, true),
    ("range_ratio", &["range_1", "range_100"], Better::Higher, false),
    ("lin_range_ratio", &["lin_range_1", "lin_range_100"], Better::Higher, false),
    ("watch_events_ratio", &["watch_events"], Better::Higher, true),
    ("watch_p99_ratio", &["watch_p99_us", "shared_watch_p99_us"], Better::Lower, false),
    ("memory_ratio", &["pss_mib"], Better::Lower, false),
    ("restart_ratio", &["restart_ms"], Better::Lower, false),
    ("cpu_ratio", &["put_cpu_us"], Better::Lower, false),
];
/// `--quick` has only this of the puts.
const QUICK_PUTS: &[&str] = &["puts_64_256"];

/// The last line.
pub fn last_line(own: &Samples, peers: &[&Samples], quick: bool) -> String {
    let wanted = RATIOS.iter().filter(|(.., also_quick)| *also_quick || !quick);
    let parts = wanted.map(|(name, of, better, _)| {
        let of = if quick && *name == "puts_ratio" { QUICK_PUTS } else { of };
        match ratio(own, peers, of, *better) {
            Some(ratio) => format!("{name}={ratio:.2}"),
            None => format!("{name}=none"),
        }
    });
    parts.collect::<Vec<_>>().join(" ")
}

/// How flat Triarch's cost of a put is: with many keys against few, and with
/// idle watchers against none.
pub fn flat(own: &Samples) -> String {
    let one = |name: &str| own.median(name).map_or_else(|| "none".to_owned(), |v| format!("{v:.2}"));
    format!("flat_keys={} flat_watchers={}", one("flat_keys"), one("flat_watchers"))
}

/// One round's figures.
pub fn brief(samples: &Samples) -> String {
    let all = samples.names().filter_map(|name| Some(format!("{name}={}", figure(samples.median(name)?))));
    all.collect::<Vec<_>>().join(" ")
}

/// Medians of all.
pub fn table(systems: &[(&str, &Samples)]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(std::iter::once("median").chain(systems.iter().map(|(name, _)| *name)));
    let mut names: Vec<&str> = systems.iter().flat_map(|(_, s)| s.names()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let figures = systems.iter().map(|(_, s)| s.median(name).map_or_else(|| "-".to_owned(), figure));
        table.add_row(std::iter::once(name.to_owned()).chain(figures));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn figure(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
