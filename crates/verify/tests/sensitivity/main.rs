//! Every field of config.json counts: changed one after another, both sides follow transformers, or say which key they do not follow.
//!
//! The goldens are in `fixtures/sensitivity`. What is refused or warned of stands in `fixtures/sensitivity/outcomes.tsv`, which
//! `UPDATE_SENSITIVITY=1` writes anew.
#![allow(missing_docs, reason = "tests")]

mod cases;
mod sides;

use cases::{Case, Golden, fixture};
use rayon::prelude::*;
use sides::{Bench, Seen};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// What logits may differ by.
const TOLERANCE: f32 = 2e-3;
/// What the goldens differ by from those of the model that they are a change of, except slight ones: the generator's `STRONG`.
const STRONG: f32 = 0.05;
const _: () = assert!(STRONG > 10.0 * TOLERANCE);

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |worst, d| if d.is_nan() { f32::INFINITY } else { worst.max(d) })
}

/// What of config.json a case changes.
fn changed(case: &Case) -> String {
    let without = case.without.iter().map(|key| format!(" without {key}"));
    serde_json::to_string(&case.set).unwrap() + &without.collect::<String>()
}

/// What is seen of a model.
#[derive(Default)]
struct Report {
    wrong: Vec<String>,
    /// Key and what happens, with the first message.
    outcomes: BTreeMap<(String, &'static str), String>,
    /// Keys that are refused although transformers makes nothing of them, and that are not although it fails on them.
    strict: BTreeSet<String>,
    lax: BTreeSet<String>,
    followed: [usize; 2],
    unmoved: usize,
}

impl Report {
    fn wrong(&mut self, case: &Case, what: String) {
        self.wrong.push(format!("{} {}: {what}", case.key, changed(case)));
    }

    /// A refusal is one that names its key.
    fn refused(&mut self, case: &Case, what: &'static str, message: &str) {
        if !case.is_named_in(message) {
            self.wrong(case, format!("{what}, but the key is not named: {message}"));
        }
        self.outcomes.entry((case.key.clone(), what)).or_insert_with(|| message.replace(['\n', '\t'], " "));
    }

    /// Judge what is seen by what transformers computes.
    fn judge(&mut self, case: &Case, seen: &Seen, golden: &[f32]) {
        if let Err(message) = &seen.described {
            return self.refused(case, "refused", message);
        }
        match &seen.source {
            Err(message) => self.refused(case, "no forward pass", message),
            Ok(logits) if worst(logits, golden) < TOLERANCE => self.followed[0] += 1,
            Ok(logits) => self.wrong(case, format!("source differs by {}", worst(logits, golden))),
        }
        let warning = seen.warnings.lines().find(|line| case.is_named_in(line));
        match (&seen.file, warning) {
            (Ok(logits), _) if worst(logits, golden) < TOLERANCE => self.followed[1] += 1,
            (_, Some(line)) => self.refused(case, "warned", line),
            (Err(message), None) => self.refused(case, "no file", message),
            (Ok(logits), None) => {
                self.wrong(case, format!("file differs by {}, warnings: {:?}", worst(logits, golden), seen.warnings));
            }
        }
    }
}

fn examine(golden: &Golden) -> Report {
    let mut report = Report::default();
    let mut bench = Bench::new(golden);
    for (case, logits) in &golden.cases {
        let seen = bench.run(case);
        report.judge(case, &seen, logits);
    }
    let mut bench = Bench::new(golden);
    let unchanged = Case { key: String::new(), ..golden.same[0].clone() };
    let unchanged = Case { set: Default::default(), without: Vec::new(), ..unchanged };
    let plain = bench.described(&unchanged).unwrap();
    for case in &golden.same {
        // One that describes the same model, or none, needs no proof.
        match bench.described(case) {
            Err(_) => _ = report.strict.insert(case.key.clone()),
            Ok(described) if case.from.is_none() && described == plain => report.unmoved += 1,
            Ok(_) => {
                let seen = bench.run(case);
                report.judge(case, &seen, golden.against(case));
            }
        }
    }
    // What transformers fails on has no right answer; most of it is refused here, too.
    for case in &golden.fails {
        report.lax.extend(bench.described(case).is_ok().then(|| case.key.clone()));
    }
    report
}

#[test]
fn both_sides_follow_every_field() {
    let names = cases::names();
    let reports: Vec<_> = names.par_iter().map(|name| (name, examine(&Golden::open(name)))).collect();
    let (mut wrong, mut outcomes) = (Vec::new(), String::new());
    for (name, report) in reports {
        wrong.extend(report.wrong.iter().map(|line| format!("{name}: {line}")));
        for ((key, what), message) in report.outcomes {
            writeln!(outcomes, "{name}\t{key}\t{what}\t{}", message.chars().take(200).collect::<String>()).unwrap();
        }
        for (what, keys) in [("refused, without effect in transformers", report.strict), ("transformers fails", report.lax)] {
            writeln!(outcomes, "{name}\t{}\t{what}\t", Vec::from_iter(keys).join(" ")).unwrap();
        }
    }
    let path = fixture("sensitivity/outcomes.tsv");
    if std::env::var_os("UPDATE_SENSITIVITY").is_some() {
        std::fs::write(&path, &outcomes).unwrap();
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    let known = std::fs::read_to_string(&path).unwrap();
    let (known, found): (BTreeSet<_>, BTreeSet<_>) = (known.lines().collect(), outcomes.lines().collect());
    let new: Vec<_> = found.difference(&known).collect();
    let missing: Vec<_> = known.difference(&found).collect();
    assert!(new.is_empty() && missing.is_empty(), "new: {new:#?}\nnot seen: {missing:#?}");
}

/// A description that ignores a field gives the logits of the model without the change: both sides of it are found wrong. So is one that
/// refuses without saying why.
#[test]
fn an_ignored_field_is_seen() {
    let mut strong = 0;
    for name in cases::names() {
        let golden = Golden::open(&name);
        for (case, logits) in golden.cases.iter().filter(|(case, _)| !case.slight) {
            let unchanged = golden.against(case);
            let moved = worst(logits, unchanged);
            assert!(moved > STRONG, "{name}, {case:?}: {moved}");
            let found = |described: Result<(), String>, warnings: &str| {
                let (source, file) = (Ok(unchanged.to_vec()), Ok(unchanged.to_vec()));
                let mut report = Report::default();
                report.judge(case, &Seen { described, source, file, warnings: warnings.to_owned() }, logits);
                (report.wrong.len(), report.followed)
            };
            assert_eq!(found(Ok(()), "something else"), (2, [0, 0]), "{name}, {case:?}");
            assert_eq!(found(Ok(()), &case.key), (1, [0, 0]), "{name}, {case:?}: the checkpoint is no matter of warnings");
            assert_eq!(found(Err("no".into()), ""), (1, [0, 0]), "{name}, {case:?}");
            strong += 1;
        }
    }
    assert!(strong > 1000, "{strong}");
}
