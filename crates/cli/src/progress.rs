//! How far a long run is.

use crate::{output, units};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Runs that end sooner show no bar.
const BAR_AFTER: Duration = Duration::from_millis(250);
/// Runs that end sooner print no lines.
const LINES_AFTER: Duration = Duration::from_secs(2);
/// Steps between lines, in percent.
const LINE_STEP: u64 = 10;

/// Counts bytes that are done, from any thread, and shows them: a bar on a terminal, now and then a line elsewhere.
#[derive(Debug)]
pub struct Progress {
    total: u64,
    done: AtomicU64,
    started: Instant,
    /// When the last byte was done.
    complete: OnceLock<Duration>,
    view: View,
}

#[derive(Debug)]
enum View {
    Nothing,
    Bar(OnceLock<ProgressBar>),
    /// The last step that a line was printed for.
    Lines(AtomicU64),
}

impl Progress {
    /// Start counting to `total` bytes.
    pub fn new(total: u64, quiet: bool) -> Self {
        let view = match (quiet, output::stderr_is_terminal()) {
            (true, _) => View::Nothing,
            (false, true) => View::Bar(OnceLock::new()),
            (false, false) => View::Lines(AtomicU64::new(0)),
        };
        Progress { total, done: AtomicU64::new(0), started: Instant::now(), complete: OnceLock::new(), view }
    }

    /// `bytes` more are done.
    pub fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let elapsed = self.started.elapsed();
        if done >= self.total {
            // Called once more only if more is done than was announced; the first time counts.
            let _ = self.complete.set(elapsed);
        }
        match &self.view {
            View::Nothing => {}
            View::Bar(bar) if elapsed < BAR_AFTER && bar.get().is_none() => {}
            View::Bar(bar) => {
                let bar = bar.get_or_init(|| new_bar(self.total, elapsed));
                bar.set_position(done);
                if done >= self.total {
                    bar.set_message("flushing to disk");
                }
            }
            View::Lines(last) => {
                let step = step(done, self.total);
                let new = last.fetch_max(step, Ordering::Relaxed) < step;
                if new && elapsed >= LINES_AFTER && done < self.total {
                    output::note(&line(done, self.total, elapsed));
                }
            }
        }
    }

    /// Remove the bar. How long it took until the last byte was done.
    pub fn end(&self) -> Duration {
        if let View::Bar(bar) = &self.view
            && let Some(bar) = bar.get()
        {
            bar.finish_and_clear();
        }
        self.complete.get().copied().unwrap_or_else(|| self.started.elapsed())
    }
}

fn new_bar(total: u64, elapsed: Duration) -> ProgressBar {
    let template = "{bar:30} {percent:>3} %  {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left {msg}";
    // The template is a constant; the default style is what a mistake in it would give.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_style(style).with_elapsed(elapsed);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn step(done: u64, total: u64) -> u64 {
    (u128::from(done) * 100 / u128::from(total.max(1))) as u64 / LINE_STEP * LINE_STEP
}

fn line(done: u64, total: u64, elapsed: Duration) -> String {
    let left = elapsed.mul_f64((total - done) as f64 / done.max(1) as f64);
    let (percent, of) = (step(done, total), units::bytes(total));
    format!("{percent} %: {} of {of}, {}, {} left", units::bytes(done), units::rate(done, elapsed), units::duration(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_at_round_percents() {
        assert_eq!([0, 99, 100, 299, 1000].map(|done| step(done, 1000)), [0, 0, 10, 20, 100]);
        assert_eq!(step(u64::MAX, u64::MAX), 100);
        assert_eq!(line(500_000_000, 2_000_000_000, Duration::from_secs(2)), "20 %: 500 MB of 2.00 GB, 250 MB/s, 6.00 s left");
    }

    #[test]
    fn completion_is_timed_once() {
        let progress = Progress::new(10, true);
        progress.add(4);
        assert!(progress.complete.get().is_none());
        progress.add(6);
        let first = progress.end();
        progress.add(1);
        assert_eq!(progress.end(), first);
    }
}
