//! Unified diffs of two texts, as messages about forbidden changes carry them:
//! three lines of context, hunks headed `@@ -1,7 +1,8 @@`, no file names.

const CONTEXT: usize = 3;
/// Larger differing parts are shown as replaced whole: the table of the longest
/// common subsequence has the product of both sides' lines.
const MAX_CELLS: usize = 1 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Keep,
    Remove,
    Add,
}

/// The difference from `old` to `new`; empty when there is none.
pub fn unified(old: &str, new: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (old.split('\n').collect(), new.split('\n').collect());
    let steps = steps(&a, &b);
    let changed: Vec<usize> = (0..steps.len()).filter(|i| steps[*i] != Step::Keep).collect();
    let mut out = String::new();
    let mut next = 0;
    while let Some(&first) = changed.get(next) {
        let mut last = first;
        while let Some(&more) = changed.get(next).filter(|c| **c <= last + 2 * CONTEXT + 1) {
            (last, next) = (more, next + 1);
        }
        let range = first.saturating_sub(CONTEXT)..(last + CONTEXT + 1).min(steps.len());
        hunk(&mut out, &a, &b, &steps, range);
    }
    out
}

fn hunk(out: &mut String, a: &[&str], b: &[&str], steps: &[Step], range: std::ops::Range<usize>) {
    let count = |steps: &[Step], not: Step| steps.iter().filter(|s| **s != not).count();
    let (mut i, mut j) = (count(&steps[..range.start], Step::Add), count(&steps[..range.start], Step::Remove));
    let (len_a, len_b) = (count(&steps[range.clone()], Step::Add), count(&steps[range.clone()], Step::Remove));
    out.push_str(&format!("@@ -{} +{} @@\n", place(i, len_a), place(j, len_b)));
    for step in &steps[range] {
        let (sign, line) = match step {
            Step::Keep => (' ', a[i]),
            Step::Remove => ('-', a[i]),
            Step::Add => ('+', b[j]),
        };
        i += usize::from(*step != Step::Add);
        j += usize::from(*step != Step::Remove);
        out.push(sign);
        out.push_str(line);
        out.push('\n');
    }
}

/// Where a hunk begins, counted from 1, and how many lines it has unless one.
fn place(start: usize, len: usize) -> String {
    match len {
        1 => (start + 1).to_string(),
        0 => format!("{start},0"),
        _ => format!("{},{len}", start + 1),
    }
}

fn steps(a: &[&str], b: &[&str]) -> Vec<Step> {
    let head = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let tail = a[head..].iter().rev().zip(b[head..].iter().rev()).take_while(|(x, y)| x == y).count();
    let (x, y) = (&a[head..a.len() - tail], &b[head..b.len() - tail]);
    let mut out = vec![Step::Keep; head];
    middle(x, y, &mut out);
    out.extend(std::iter::repeat_n(Step::Keep, tail));
    out
}

/// By the longest common subsequence; removals come before additions.
fn middle(a: &[&str], b: &[&str], out: &mut Vec<Step>) {
    let width = b.len() + 1;
    if (a.len() + 1).saturating_mul(width) > MAX_CELLS {
        out.extend(std::iter::repeat_n(Step::Remove, a.len()));
        out.extend(std::iter::repeat_n(Step::Add, b.len()));
        return;
    }
    // common[i * width + j]: of a[i..] and b[j..].
    let mut common = vec![0u32; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i * width + j] = if a[i] == b[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            out.push(Step::Keep);
            (i, j) = (i + 1, j + 1);
        } else if i < a.len() && (j == b.len() || common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            out.push(Step::Remove);
            i += 1;
        } else {
            out.push(Step::Add);
            j += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hunks_have_three_lines_around_them_and_join_when_they_touch() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9";
        assert_eq!(unified(old, old), "");
        assert_eq!(unified(old, "1\n2\n3\n4\nx\n6\n7\n8\n9"), "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+x\n 6\n 7\n 8\n");
        assert_eq!(unified("a", "a\nb"), "@@ -1 +1,2 @@\n a\n+b\n");
        let far: String = (0..30).map(|n| format!("{n}\n")).collect();
        let changed = far.replace("2\n3\n", "2\ny\n3\n").replace("\n25\n", "\n");
        assert_eq!(unified(&far, &changed).matches("@@ -").count(), 2);
        assert_eq!(unified("a\nb\nc", "x\nb\ny"), "@@ -1,3 +1,3 @@\n-a\n+x\n b\n-c\n+y\n");
    }

    #[test]
    fn a_huge_difference_is_shown_as_replaced() {
        let old: String = (0..2_000).map(|n| format!("a{n}\n")).collect();
        let new: String = (0..2_000).map(|n| format!("b{n}\n")).collect();
        let text = unified(&old, &new);
        assert!(text.starts_with("@@ -1,2001 +1,2001 @@\n-a0\n") || text.starts_with("@@ -1,2000 "), "{}", &text[..40]);
    }
}
