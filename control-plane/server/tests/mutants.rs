//! The mistakes that the simulation makes on purpose are in no build of `triarch`.

use std::path::Path;

/// The names in the simulation's table: each stands before `found by`.
fn names() -> Vec<String> {
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../chaos/sim/src/mutants.rs");
    let text = std::fs::read_to_string(table).unwrap();
    let lines = text.lines().filter(|l| l.contains("found by \"")).map(str::trim_start);
    lines.filter_map(|l| Some(l.strip_prefix('"')?.split_once('"')?.0.to_owned())).collect()
}

#[test]
fn no_mistake_on_purpose_is_built_into_the_server() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_triarch")).unwrap();
    let holds = |text: &str| program.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(holds("system:public-info-viewer"), "the program's own strings are found");
    let names = names();
    assert!(names.len() >= 20, "{names:?}");
    let built: Vec<_> = names.iter().filter(|n| holds(n)).collect();
    assert!(built.is_empty(), "{built:?}");
}
