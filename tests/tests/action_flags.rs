//! Every flag that the GitHub Action gives to the binary is one of the binary's.

use ggufsmith_tests::binary::ggufsmith;
use ggufsmith_tests::root;
use std::collections::BTreeSet;

/// The flags in a text, e.g. `--report-dir`.
fn flags(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let after = text.match_indices("--").map(|(at, _)| &text[at..]);
    let flags = after.map(|rest| rest.split(|c| !word(c)).next().unwrap_or_default().to_owned());
    flags.filter(|flag| flag.len() > 2 && flag.as_bytes()[2].is_ascii_lowercase()).collect()
}

/// The lines of scripts/action from `NAME() {` to its end.
fn function(name: &str) -> String {
    let script = std::fs::read_to_string(root().join("scripts/action")).unwrap();
    let body = script.split(&format!("\n{name}() {{\n")).nth(1).unwrap_or_else(|| panic!("no function {name}"));
    body.split("\n}\n").next().unwrap_or_default().to_owned()
}

fn missing(command: &str, used: &BTreeSet<String>) -> Vec<String> {
    let help = ggufsmith(&[command, "--help"]);
    let known = flags(help.ok().unwrap_or_else(|e| panic!("{e}")));
    used.difference(&known).cloned().collect()
}

#[test]
fn convert_knows_its_flags() {
    let used = flags(&function("convert"));
    assert!(used.contains("--type") && used.contains("--out"), "{used:?}");
    assert_eq!(missing("convert", &used), [""; 0]);
    let wrong = BTreeSet::from(["--no-such-flag".to_owned()]);
    assert_eq!(missing("convert", &wrong), ["--no-such-flag"], "the check itself");
}

#[test]
fn verify_knows_its_flags() {
    let used = flags(&function("verify"));
    assert!(used.contains("--max-ppl-ratio") && used.len() >= 7, "{used:?}");
    assert_eq!(missing("verify", &used), [""; 0]);
}

#[test]
fn export_knows_its_flags() {
    let body = function("round_trip");
    let line = body.lines().find(|line| line.contains("ggufsmith export")).unwrap();
    assert_eq!(missing("export", &flags(line)), [""; 0]);
}
