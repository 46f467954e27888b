//! Thresholds and what follows from them, at their edges.

mod samples;

use ggufsmith_verify::gate::{COLLAPSE_RATIO, Config, ConfigError, Thresholds, exit_code, judge};
use ggufsmith_verify::report::{Figures, Report, Status};
use samples::{SAMPLES, hostile, report, without_forward};
use std::path::Path;

const TYPES: [&str; 3] = ["Q4_0", "Q4_K_M", "Q8_0"];

fn judged(thresholds: Thresholds, change: impl FnOnce(&mut Figures)) -> Report {
    let mut report = report(SAMPLES[8]);
    change(report.figures.as_mut().unwrap());
    judge(&mut report, &thresholds);
    report
}

fn failures(thresholds: Thresholds, change: impl FnOnce(&mut Figures)) -> Vec<String> {
    judged(thresholds, change).gate.failures
}

/// Each comparison holds at its threshold and fails one step beyond it.
#[test]
fn thresholds_hold_to_the_last_bit() {
    let limit = 1.05_f64;
    let thresholds = Thresholds { max_ppl_ratio: Some(limit), ..Thresholds::default() };
    assert_eq!(failures(thresholds, |f| f.perplexity_ratio = limit), [""; 0]);
    let beyond = failures(thresholds, |f| f.perplexity_ratio = limit.next_up());
    assert_eq!(beyond, ["perplexity ratio is 1.0500000000000003, the limit is 1.05"]);

    let limit = 0.1_f64;
    let thresholds = Thresholds { max_kld: Some(limit), ..Thresholds::default() };
    assert_eq!(failures(thresholds, |f| f.kld_mean = limit), [""; 0]);
    let beyond = failures(thresholds, |f| f.kld_mean = limit.next_up());
    assert_eq!(beyond, ["mean KL divergence in nats is 0.10000000000000002, the limit is 0.1"]);

    let limit = 0.9_f64;
    let thresholds = Thresholds { min_top1: Some(limit), ..Thresholds::default() };
    assert_eq!(failures(thresholds, |f| f.same_top1 = limit), [""; 0]);
    let beyond = failures(thresholds, |f| f.same_top1 = limit.next_down());
    assert_eq!(beyond, ["same top-1 is 0.8999999999999999, the limit is 0.9"]);

    assert_eq!(failures(Thresholds::default(), |f| f.perplexity_ratio = COLLAPSE_RATIO), [""; 0]);
    assert_eq!(failures(Thresholds::default(), |f| f.perplexity_ratio = COLLAPSE_RATIO.next_up()).len(), 1);
    // Somebody who sets a ratio knows better.
    let generous = Thresholds { max_ppl_ratio: Some(3.0), ..Thresholds::default() };
    assert_eq!(failures(generous, |f| f.perplexity_ratio = 2.5), [""; 0]);
}

#[test]
fn what_is_not_finite_has_collapsed() {
    type Change = fn(&mut Figures, f64);
    let changes: [(Change, &str); 6] = [
        (|f, x| f.perplexity_source = x, "perplexity of the source is not finite"),
        (|f, x| f.perplexity = x, "perplexity is not finite"),
        (|f, x| f.perplexity_ratio = x, "perplexity ratio is not finite"),
        (|f, x| f.kld_mean = x, "mean KL divergence is not finite"),
        (|f, x| f.kld_max = x, "largest KL divergence is not finite"),
        (|f, x| f.same_top1 = x, "same top-1 is not finite"),
    ];
    let strict = Thresholds { max_ppl_ratio: Some(1.5), max_kld: Some(1.0), min_top1: Some(0.5) };
    for (change, message) in changes {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for thresholds in [Thresholds::default(), strict] {
                assert_eq!(failures(thresholds, |f| change(f, value)), [message]);
            }
        }
    }
}

#[test]
fn a_threshold_without_a_figure_fails() {
    let mut report = without_forward(SAMPLES[8]);
    judge(&mut report, &Thresholds::default());
    assert_eq!((report.gate.failures.len(), report.faithful), (0, false));
    assert_eq!(report.verdict, "Passed as far as it was checked: forward did not run.");
    assert_eq!(exit_code(std::slice::from_ref(&report), &["forward"]), 0);
    assert_eq!(exit_code(std::slice::from_ref(&report), &["tokenizer"]), 2);
    for (at, thresholds) in [
        Thresholds { max_ppl_ratio: Some(2.0), ..Thresholds::default() },
        Thresholds { max_kld: Some(2.0), ..Thresholds::default() },
        Thresholds { min_top1: Some(0.0), ..Thresholds::default() },
    ]
    .into_iter()
    .enumerate()
    {
        judge(&mut report, &thresholds);
        assert!(report.gate.failures.len() == 1 && report.gate.failures[0].contains("not measured"), "{at}");
        assert_eq!(exit_code(std::slice::from_ref(&report), &["forward"]), 1);
    }
}

#[test]
fn every_check_must_run_and_pass() {
    let good = judged(Thresholds::default(), |_| ());
    assert!(good.faithful && good.verdict.starts_with("Faithful: all 4 checks passed; perplexity is 1.06"), "{}", good.verdict);
    assert_eq!(exit_code(std::slice::from_ref(&good), &[]), 0);
    for at in 0..4 {
        for (status, code) in [(Status::Failed, 1), (Status::Skipped, 2)] {
            let mut bad = good.clone();
            bad.checks[at].status = status;
            judge(&mut bad, &Thresholds::default());
            assert!(!bad.faithful && bad.verdict.contains(bad.checks[at].name.as_str()), "{}", bad.verdict);
            // One bad file among good ones decides; what was switched off excuses no failure.
            assert_eq!(exit_code(&[good.clone(), bad.clone()], &[]), code);
            assert_eq!(exit_code(&[bad.clone()], &["structure", "tensors", "tokenizer", "forward"]), code % 2);
        }
    }
    assert_eq!(exit_code(&[], &[]), 2);
    let mut unchecked = good.clone();
    unchecked.checks.clear();
    judge(&mut unchecked, &Thresholds::default());
    assert_eq!((unchecked.faithful, exit_code(&[unchecked.clone()], &[])), (false, 2));

    let mut both = hostile(SAMPLES[8]);
    judge(&mut both, &Thresholds { max_kld: Some(0.1), ..Thresholds::default() });
    assert!(both.verdict.starts_with("Not faithful: tensors failed; the gate failed too: "), "{}", both.verdict);
    let gated = judged(Thresholds { max_kld: Some(0.01), ..Thresholds::default() }, |_| ());
    assert!(gated.faithful && exit_code(std::slice::from_ref(&gated), &[]) == 1);
    assert_eq!(gated.verdict, "Faithful, but the gate failed: mean KL divergence in nats is 0.05430, the limit is 0.01.");
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("verify.toml"), text, &TYPES)
}

#[test]
fn sections_of_types_come_before_the_common_one() {
    let config = parse("[gate]\nmax_ppl_ratio = 2\nmax_kld = 0.1\nmin_top1 = 0.9\n[gate.q4_0]\nmax_kld = 0.2\n").unwrap();
    let common = Thresholds { max_ppl_ratio: Some(2.0), max_kld: Some(0.1), min_top1: Some(0.9) };
    assert_eq!(config.for_type("Q8_0"), common);
    assert_eq!(config.for_type("Q4_0"), Thresholds { max_kld: Some(0.2), ..common });
    let command_line = Thresholds { max_kld: Some(0.3), ..Thresholds::default() };
    assert_eq!(command_line.or(config.for_type("Q4_0")).max_kld, Some(0.3));
    assert_eq!(parse("").unwrap().for_type("Q4_0"), Thresholds::default());
}

#[test]
fn unknown_keys_are_told_with_the_nearest() {
    let cases = [
        ("[gates]\n", "verify.toml: unknown section \"gates\" in the file (did you mean gate?)"),
        ("[gate]\nmax_klt = 1\n", "verify.toml: unknown key \"max_klt\" in [gate] (did you mean max_kld?)"),
        ("[gate.Q4_0]\nmin_top = 0.5\n", "verify.toml: unknown key \"min_top\" in [gate.Q4_0] (did you mean min_top1?)"),
        ("[gate.Q4_K]\nmax_kld = 1\n", "verify.toml: unknown type \"Q4_K\" in [gate] (did you mean Q4_0?)"),
        (
            "[gate]\nsomething = 1\n",
            "verify.toml: unknown key \"something\" in [gate] (known: max_ppl_ratio, max_kld, min_top1, Q4_0, Q4_K_M, Q8_0)",
        ),
        ("gate = 3\n", "verify.toml: gate in the file is integer, and has to be a section"),
        ("[gate]\nmax_kld = \"0.1\"\n", "verify.toml: max_kld in [gate] is string, and has to be a number"),
        ("[gate]\nQ4_0 = 0.1\n", "verify.toml: unknown key \"Q4_0\" in [gate] (did you mean Q4_0 or Q8_0?)"),
        (
            "[gate.Q4_0]\nmin_top1 = 90\n",
            "verify.toml: [gate.Q4_0]: min_top1 is 90, and has to be a share of 0 to 1, e.g. 0.9 for 90 %",
        ),
        ("[gate]\nmax_kld = nan\n", "verify.toml: [gate]: max_kld is NaN, and has to be a number of nats, 0 or more, e.g. 0.1"),
        ("[gate]\nmax_ppl_ratio = 0.0\n", "verify.toml: [gate]: max_ppl_ratio is 0, and has to be a positive number, e.g. 1.05"),
        ("[gate.Q4_0]\n[gate.q4_0]\n", "verify.toml: [gate.q4_0] is there twice, in different letters"),
    ];
    for (text, message) in cases {
        assert_eq!(parse(text).unwrap_err().to_string(), message, "{text}");
    }
    assert!(matches!(parse("[gate\n"), Err(ConfigError::Syntax { .. })));
    assert!(matches!(parse("[gate]\nmax_kld = 1\nmax_kld = 2\n"), Err(ConfigError::Syntax { .. })));
    assert!(matches!(parse(&"[".repeat(100_000)), Err(ConfigError::Syntax { .. })));
    assert!(matches!(Config::open(Path::new("/nonexistent.toml"), &TYPES), Err(ConfigError::Io { .. })));
}
