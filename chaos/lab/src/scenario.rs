//! Scenario scripts: commands as one would type them, with what they must say.
//!
//! ```text
//!   # a comment
//!   $ kubectl get ns default -o name
//!   namespace/default
//!   $ kubectl get pod nobody          the command must fail when `!` follows the `$`
//!   ~ something in between            `~`: the output has this somewhere
//!   @ kill-leader                     `@`: something is done to the cluster
//!   ? kubectl get deploy web …        `?`: repeated until the output fits, or time is up
//! ```
//! `{...}` in an expected line fits anything. Owns reading and comparing; who
//! runs commands is an argument. Invariant: a script that expects nothing of
//! any command is refused, so that no script passes by saying nothing.

/// Longer scripts are refused, in steps.
const MAX_STEPS: usize = 1000;

/// One command with what it must come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub line: usize,
    pub action: Action,
    pub expected: Vec<Expected>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A shell command. `fails`: it must exit with an error.
    Run { command: String, fails: bool, patient: bool },
    /// Something done to the cluster, by name.
    Fault(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The next line of the output.
    Line(String),
    /// Somewhere in the output.
    Somewhere(String),
}

/// Reads a script.
///
/// # Errors
/// Names the line.
pub fn parse(text: &str) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let number = i + 1;
        let run = |command: &str, fails, patient| Action::Run { command: command.trim().to_owned(), fails, patient };
        let action = if line.starts_with('#') || line.trim().is_empty() {
            continue;
        } else if let Some(command) = line.strip_prefix("$! ") {
            run(command, true, false)
        } else if let Some(command) = line.strip_prefix("$ ") {
            run(command, false, false)
        } else if let Some(command) = line.strip_prefix("? ") {
            run(command, false, true)
        } else if let Some(fault) = line.strip_prefix("@ ") {
            Action::Fault(fault.trim().to_owned())
        } else {
            let step = steps.last_mut().ok_or(format!("line {number}: output before any command"))?;
            if matches!(step.action, Action::Fault(_)) {
                return Err(format!("line {number}: a fault says nothing"));
            }
            step.expected.push(match line.strip_prefix("~ ") {
                Some(part) => Expected::Somewhere(part.to_owned()),
                None => Expected::Line(line.to_owned()),
            });
            continue;
        };
        if steps.len() == MAX_STEPS {
            return Err(format!("line {number}: more than {MAX_STEPS} steps"));
        }
        steps.push(Step { line: number, action, expected: Vec::new() });
    }
    if steps.iter().all(|s| s.expected.is_empty()) {
        return Err("the script expects nothing".to_owned());
    }
    if let Some(step) =
        steps.iter().find(|s| matches!(s.action, Action::Run { patient: true, .. }) && s.expected.is_empty())
    {
        return Err(format!("line {}: waits for nothing", step.line));
    }
    Ok(steps)
}

/// Whether the output is what the step expects: its lines in order and all of
/// them (unless only parts are expected), and its parts somewhere.
///
/// # Errors
/// Says what differs.
pub fn compare(output: &str, expected: &[Expected]) -> Result<(), String> {
    for e in expected {
        if let Expected::Somewhere(part) = e
            && !output.lines().any(|l| contains(l, part))
        {
            return Err(format!("nowhere: {part:?}\n    in: {output}"));
        }
    }
    let wanted: Vec<&String> =
        expected.iter().filter_map(|e| if let Expected::Line(l) = e { Some(l) } else { None }).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    // Empty lines separate commands in a script, so they count for nothing here.
    let lines: Vec<&str> = output.lines().filter(|l| !l.trim().is_empty()).collect();
    for (i, want) in wanted.iter().enumerate() {
        match lines.get(i) {
            Some(line) if fits(line.trim_end(), want.trim_end()) => {}
            found => return Err(format!("line {}: expected {want:?}, got {found:?}\n    in: {output}", i + 1)),
        }
    }
    if lines.len() > wanted.len() {
        return Err(format!("more than expected: {:?}", &lines[wanted.len()..]));
    }
    Ok(())
}

const ANYTHING: &str = "{...}";

/// Whether a line is the pattern's, where `{...}` is anything.
fn fits(line: &str, pattern: &str) -> bool {
    let mut parts = pattern.split(ANYTHING);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn contains(line: &str, part: &str) -> bool {
    fits(line, &format!("{ANYTHING}{part}{ANYTHING}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_commands_with_their_output() {
        let steps = parse("# x\n$ a b\nout\n~ part\n$! c\n\n@ kill-leader\n? d\nyes\n").unwrap();
        assert_eq!(steps.len(), 4);
        assert_eq!(steps[0].expected, [Expected::Line("out".into()), Expected::Somewhere("part".into())]);
        assert_eq!(steps[1].action, Action::Run { command: "c".into(), fails: true, patient: false });
        assert_eq!(steps[2].action, Action::Fault("kill-leader".into()));
        assert_eq!(steps[3].line, 8);
    }

    #[test]
    fn a_script_that_expects_nothing_or_waits_for_nothing_is_refused() {
        assert!(parse("$ true\n").is_err());
        assert!(parse("$ a\nx\n? b\n").unwrap_err().contains("line 3"));
        assert!(parse("x\n").is_err());
        assert!(parse("@ kill-leader\nx\n").is_err());
    }

    #[test]
    fn output_is_compared_line_by_line_with_room_for_anything() {
        let line = |s: &str| vec![Expected::Line(s.into())];
        assert!(compare("pod/web-1 created\n", &line("pod/{...} created")).is_ok());
        assert!(compare("pod/web-1 deleted\n", &line("pod/{...} created")).is_err());
        assert!(compare("a\nb\n", &line("a")).is_err());
        assert!(compare("", &line("a")).is_err());
        assert!(compare("a\n\n", &line("a")).is_ok());
        assert!(compare("a\nb c\n", &[Expected::Somewhere("c".into())]).is_ok());
        assert!(compare("a\n", &[Expected::Somewhere("c".into())]).is_err());
        assert!(fits("abcabc", "a{...}c") && !fits("ab", "ab{...}b"));
    }
}
