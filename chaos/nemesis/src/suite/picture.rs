//! The run as a picture: faults on a lane a replica, acknowledged writes and
//! their latency beneath, on one axis of time. SVG, by hand, no scripts.

use std::fmt::Write;

use super::Seen;
use super::seconds::Second;

const WIDTH: f64 = 1160.0;
const LEFT: f64 = 64.0;
const LANE: f64 = 26.0;
const CHART: f64 = 150.0;
const GAP: f64 = 34.0;
/// More points than this are put together, the worst of each group shown.
const POINTS: usize = 1_000;

/// The picture of a run.
pub fn draw(faults: &[Seen], seconds: &[Second], lanes: &[String]) -> String {
    let last = faults.iter().map(|f| f.done.whole as f64 / 1e9).fold(seconds.len() as f64, f64::max).max(1.0);
    let x = |s: f64| LEFT + s / last * (WIDTH - LEFT - 10.0);
    let lanes_end = 20.0 + LANE * lanes.len() as f64;
    let (writes, latency) = (lanes_end + GAP, lanes_end + GAP * 2.0 + CHART);
    let height = latency + CHART + 40.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" \
         aria-label=\"Faults, throughput and latency over time\">\n"
    );
    draw_lanes(&mut svg, faults, lanes, &x);
    for seen in faults {
        // Through the charts too, so that cause and effect are seen together.
        let (from, to) = (x(seen.done.at as f64 / 1e9), x(seen.done.healed as f64 / 1e9));
        let (wide, tall) = ((to - from).max(1.0), latency + CHART - writes);
        let _ = writeln!(
            svg,
            "<rect class=\"shade\" x=\"{from:.1}\" y=\"{writes:.0}\" width=\"{wide:.1}\" height=\"{tall:.0}\"/>"
        );
    }
    let groups = group(seconds);
    let most = groups.iter().map(|(_, s)| f64::from(s.acked)).fold(1.0, f64::max);
    axis(&mut svg, writes, &format!("{most:.0}"), "acknowledged writes/s");
    line(&mut svg, "acked", groups.iter().map(|(at, s)| (x(*at), writes + CHART * (1.0 - f64::from(s.acked) / most))));
    let slowest = groups.iter().map(|(_, s)| s.max as f64 / 1e3).fold(1.0, f64::max);
    // Decades: a stall of seconds and a write of a millisecond are both seen.
    let decades = slowest.log10().ceil().max(1.0);
    let y = |micros: u64| latency + CHART * (1.0 - ((micros as f64 / 1e3).max(1.0).log10() / decades).min(1.0));
    axis(&mut svg, latency, &format!("{:.0} ms", 10f64.powf(decades)), "latency of writes, logarithmic");
    for (class, of) in [("max", (|s: &Second| s.max) as fn(&Second) -> u64), ("p99", |s| s.p99), ("p50", |s| s.p50)] {
        line(&mut svg, class, groups.iter().map(|(at, s)| (x(*at), y(of(s)))));
    }
    for tick in 0..=6 {
        let (at, bottom) = (last * f64::from(tick) / 6.0, latency + CHART + 18.0);
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{bottom:.0}\" text-anchor=\"middle\">{at:.0} s</text>", x(at));
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_lanes(svg: &mut String, faults: &[Seen], lanes: &[String], x: &impl Fn(f64) -> f64) {
    for (n, name) in lanes.iter().enumerate() {
        let y = 20.0 + LANE * n as f64;
        let _ = writeln!(
            svg,
            "<text x=\"4\" y=\"{:.0}\">{name}</text><line class=\"axis\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.0}\" y2=\"{y:.0}\"/>",
            y + 17.0
        );
    }
    for seen in faults {
        let d = &seen.done;
        let (from, to, whole) = (x(d.at as f64 / 1e9), x(d.healed as f64 / 1e9), x(d.whole as f64 / 1e9));
        let everywhere = matches!(d.name, "crash-all" | "rolling-restart" | "rolling-upgrade");
        let hit = |name: &String| everywhere || *name == d.replica;
        for (n, _) in lanes.iter().enumerate().filter(|(_, name)| hit(name)) {
            let y = 23.0 + LANE * n as f64;
            let _ = writeln!(
                svg,
                "<rect class=\"well\" x=\"{to:.1}\" y=\"{y:.0}\" width=\"{:.1}\" height=\"{}\"/>\
                 <rect class=\"hurt\" x=\"{from:.1}\" y=\"{y:.0}\" width=\"{:.1}\" height=\"{}\">\
                 <title>{} of {}{}, from {:.1} s, gap {} ms, whole after {} ms</title></rect>",
                (whole - to).max(1.0),
                LANE - 6.0,
                (to - from).max(2.0),
                LANE - 6.0,
                d.name,
                d.replica,
                if d.led { ", the leader" } else { "" },
                d.at as f64 / 1e9,
                seen.gap / 1_000_000,
                (d.whole - d.at) / 1_000_000,
            );
        }
    }
}

fn axis(svg: &mut String, top: f64, most: &str, what: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{:.0}\">{what}</text><text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{most}</text>\
         <line class=\"axis\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{:.0}\" y2=\"{:.0}\"/>",
        top - 6.0,
        LEFT - 6.0,
        top + 8.0,
        top + CHART,
        top + CHART
    );
}

fn line(svg: &mut String, class: &str, points: impl Iterator<Item = (f64, f64)>) {
    let points: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(svg, "<polyline class=\"{class}\" points=\"{}\"/>", points.join(" "));
}

/// Seconds with the middle of each group, few enough to draw.
fn group(seconds: &[Second]) -> Vec<(f64, Second)> {
    let each = seconds.len().div_ceil(POINTS).max(1);
    let one = |(n, group): (usize, &[Second])| {
        let at = (n * each) as f64 + group.len() as f64 / 2.0;
        let worst = |of: fn(&Second) -> u64| group.iter().map(of).max().unwrap_or(0);
        let acked = group.iter().map(|s| s.acked).min().unwrap_or(0);
        let unknown = group.iter().map(|s| s.unknown).sum();
        (at, Second { acked, unknown, p50: worst(|s| s.p50), p99: worst(|s| s.p99), max: worst(|s| s.max) })
    };
    seconds.chunks(each).enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_is_drawn_with_few_points_and_its_worst_seconds() {
        let mut seconds = vec![Second { acked: 500, p50: 1, p99: 2, max: 3, unknown: 0 }; 5_000];
        seconds[4_321] = Second { acked: 0, p50: 9, p99: 9, max: 9_000, unknown: 1 };
        let groups = group(&seconds);
        assert_eq!(groups.len(), 1_000);
        assert!(groups.iter().any(|(_, s)| s.acked == 0 && s.max == 9_000 && s.unknown == 1));
    }
}
