//! The report: one HTML file without scripts and without anything from
//! elsewhere, so that it can be kept and sent.

use std::fmt::Write;

use super::checks::Verdict;
use super::{Outcome, picture};

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1180px;padding:0 1rem;color:#1c2024}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}code{background:#f1f3f5;padding:.1em .3em}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #e4e7ea;\
vertical-align:top}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.ok{color:#1a7f37}.bad{color:#b42318;\
font-weight:600}svg{width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:#57606a}.axis{stroke:#d0d7de}\
.hurt{fill:#d1495b}.well{fill:#edae49}.shade{fill:#d1495b;opacity:.07}polyline{fill:none;stroke-width:1.2}\
.acked{stroke:#1f6feb}.max{stroke:#d0d7de}.p99{stroke:#e36209}.p50{stroke:#1a7f37}small{color:#57606a}";

/// The whole page.
pub fn render(o: &Outcome) -> String {
    let (verdict, class) = if o.good() { ("kept", "ok") } else { ("not kept", "bad") };
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Faults, seed {}</title><style>{STYLE}</style></head>\n\
         <body><h1>Real faults: promises <span class=\"{class}\">{verdict}</span></h1>\n<p><code>{}</code></p>\n\
         <p>{}</p>\n<p>Again, with the same faults in the same order: <code>{}</code></p>\n",
        o.seed,
        escape(&o.to_string()),
        escape(&o.about),
        escape(&o.replay)
    );
    checks(&mut page, o);
    page.push_str("<h2>Over time</h2>\n");
    let mut lanes: Vec<String> = o.faults.iter().map(|f| f.done.replica.clone()).collect();
    lanes.sort();
    lanes.dedup();
    page.push_str(&picture::draw(&o.faults, &o.seconds, &lanes));
    page.push_str(
        "<p><small>Above, one lane a replica: red while it is hurt, yellow until it has caught up. Below: \
         acknowledged writes a second, and their median (green), 99th percentile (orange) and maximum (grey).</small></p>\n",
    );
    faults(&mut page, o);
    page.push_str("</body></html>\n");
    page
}

fn checks(page: &mut String, o: &Outcome) {
    page.push_str(
        "<h2>Promises</h2>\n<table><tr><th>promise</th><th class=\"n\">looked at</th><th class=\"n\">of</th>\
         <th>verdict</th></tr>\n",
    );
    for (check, Verdict { looked, failed, behind }) in o.checks.all() {
        let verdict = if failed.is_empty() {
            "<span class=\"ok\">kept</span>".to_owned()
        } else {
            let said: Vec<String> = failed.iter().map(|f| escape(f)).collect();
            format!("<span class=\"bad\">{} times not kept</span><br>{}", failed.len(), said.join("<br>"))
        };
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td class=\"n\">{looked}</td><td class=\"n\">{behind}</td><td>{verdict}</td></tr>",
            check.text()
        );
    }
    page.push_str("</table>\n");
}

fn faults(page: &mut String, o: &Outcome) {
    page.push_str(
        "<h2>Faults</h2>\n<table><tr><th class=\"n\">at, s</th><th>fault</th><th>replica</th>\
         <th class=\"n\">lasted, ms</th><th class=\"n\">longest silence, ms</th><th class=\"n\">whole after, ms</th>\
         <th class=\"n\">elections</th><th class=\"n\">later</th></tr>\n",
    );
    for seen in &o.faults {
        let d = &seen.done;
        let ms = |ns: u64| ns / 1_000_000;
        let _ = writeln!(
            page,
            "<tr><td class=\"n\">{:.1}</td><td title=\"{}\">{}</td><td>{}{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            d.at as f64 / 1e9,
            escape(seen.what),
            d.name,
            escape(&d.replica),
            if d.led { ", the leader" } else { "" },
            ms(d.healed - d.at),
            ms(seen.gap),
            ms(d.whole - d.at),
            d.elections,
            d.disturbed,
        );
    }
    page.push_str("</table>\n");
    if !o.left_out.is_empty() {
        page.push_str("<h2>Left out</h2>\n<ul>\n");
        for (name, why) in &o.left_out {
            let _ = writeln!(page, "<li>{name}: {}</li>", escape(why));
        }
        page.push_str("</ul>\n");
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::checks::{Check, Checks};

    #[test]
    fn the_page_says_what_was_not_kept_and_how_to_do_it_again_and_loads_nothing() {
        let mut checks = Checks::default();
        checks.look(Check::Whole, 3, None);
        checks.look(Check::Lost, 9, Some("r-1 <gone>".into()));
        let outcome =
            Outcome { seed: 7, replay: "triarch-nemesis suite --seed 7".into(), checks, ..Outcome::default() };
        let page = render(&outcome);
        assert!(page.contains("suite --seed 7") && page.contains("r-1 &lt;gone&gt;") && page.contains("not kept"));
        for outside in ["src=", "href=", "@import", "url(", "<script"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
