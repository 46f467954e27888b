//! What a report comes to, and what one is called beside others.

use super::text::{clean, plural, shorten};
use super::{Report, Status};

/// What became of one file, or of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// Every check ran and passed, and the gate holds.
    Passed,
    /// Nothing failed, and not everything ran.
    Partial,
    /// A check or the gate failed.
    Failed,
}

impl Outcome {
    pub(super) fn of(report: &Report) -> Self {
        let failed = report.checks.iter().any(|check| check.status == Status::Failed);
        match () {
            () if failed || !report.gate.failures.is_empty() => Outcome::Failed,
            () if report.faithful => Outcome::Passed,
            () => Outcome::Partial,
        }
    }

    /// The worst of several.
    pub(super) fn of_all(reports: &[Report]) -> Self {
        reports.iter().map(Outcome::of).max().unwrap_or(Outcome::Partial)
    }

    /// In front of words, so that colour is not the only sign.
    pub(super) fn mark(self) -> &'static str {
        match self {
            Outcome::Passed => "✓",
            Outcome::Partial => "–",
            Outcome::Failed => "✗",
        }
    }

    /// A class of the style sheet.
    pub(super) fn class(self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Partial => "partial",
            Outcome::Failed => "failed",
        }
    }
}

/// The verdict on one file in two or three words.
pub(super) fn words(report: &Report) -> &'static str {
    let failed = report.checks.iter().any(|check| check.status == Status::Failed);
    match () {
        () if failed => "not faithful",
        () if !report.gate.failures.is_empty() => "gate failed",
        () if report.faithful => "faithful",
        () => "not fully checked",
    }
}

/// The verdict on all files in one sentence.
pub(super) fn sentence(reports: &[Report]) -> String {
    let [report] = reports else {
        let count = |outcome| reports.iter().filter(|report| Outcome::of(report) == outcome).count() as u64;
        let (passed, failed) = (count(Outcome::Passed), count(Outcome::Failed));
        let all = plural(reports.len() as u64, "file");
        return match Outcome::of_all(reports) {
            _ if reports.is_empty() => "No file was checked.".to_owned(),
            Outcome::Passed => format!("All {all} are faithful to the source and within the thresholds."),
            Outcome::Partial => format!("{passed} of {all} are faithful; the others were not fully checked."),
            Outcome::Failed => format!("{failed} of {all} failed."),
        };
    };
    let verdict = clean(&report.verdict);
    if verdict.is_empty() { format!("The file is {}.", words(report)) } else { verdict }
}

/// A short name for each file: its type, with its number in the table where several have that type.
pub(super) fn labels(reports: &[Report]) -> Vec<String> {
    let same = |name: &str| reports.iter().filter(|report| report.file_type == name).count();
    let label = |(at, report): (usize, &Report)| {
        let name = shorten(if report.file_type.is_empty() { "file" } else { &report.file_type }, 14);
        if same(&report.file_type) > 1 { format!("{name} ({})", at + 1) } else { name }
    };
    reports.iter().enumerate().map(label).collect()
}

/// Name of the source that all reports share; of several sources the first.
pub(super) fn source_name(reports: &[Report]) -> String {
    reports.first().map_or_else(|| "nothing".to_owned(), |report| clean(&report.source.name))
}

/// Up to `most` tensors with the largest relative error, largest first; those that are not finite come before all others. Tensors
/// without an error and without a fault are left out.
pub(super) fn worst_tensors(report: &Report, most: usize) -> Vec<&super::TensorFigures> {
    use super::TensorVerdict::{Bounded, Exact, Lossless, Unknown, Wrong};
    let rank = |tensor: &super::TensorFigures| match tensor.verdict {
        Wrong => 0,
        Unknown => 1,
        Lossless | Exact | Bounded => 2,
    };
    let error = |tensor: &super::TensorFigures| if tensor.relative_rmse.is_nan() { f64::INFINITY } else { tensor.relative_rmse };
    let mut worst: Vec<_> = report.tensors.iter().filter(|tensor| rank(tensor) < 2 || error(tensor) != 0.0).collect();
    // Stable: equal ones stay in file order.
    worst.sort_by(|a, b| rank(a).cmp(&rank(b)).then(error(b).total_cmp(&error(a))));
    worst.truncate(most);
    worst
}
