//! How far long computations are: a bar on a terminal, a line now and then elsewhere.

use crate::{output, units};
use ggufsmith_verify::Events;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What ends sooner shows nothing.
const QUIET_FOR: Duration = Duration::from_millis(500);
/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(20);

/// Shows one computation after the other.
#[derive(Debug)]
pub struct Steps {
    quiet: bool,
    now: Mutex<Option<Now>>,
}

#[derive(Debug)]
struct Now {
    what: String,
    total: u64,
    done: u64,
    started: Instant,
    last: Instant,
    bar: Option<ProgressBar>,
}

impl Steps {
    /// `quiet`: show nothing.
    pub fn new(quiet: bool) -> Self {
        Steps { quiet, now: Mutex::new(None) }
    }

    fn now(&self) -> MutexGuard<'_, Option<Now>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Events for Steps {
    fn begin(&self, what: &str, total: u64) {
        if !self.quiet {
            let (started, what) = (Instant::now(), what.to_owned());
            *self.now() = Some(Now { what, total, done: 0, started, last: started, bar: None });
        }
    }

    fn advance(&self, steps: u64) {
        if let Some(now) = self.now().as_mut() {
            now.advance(steps);
        }
    }

    fn end(&self) {
        if let Some(bar) = self.now().take().and_then(|now| now.bar) {
            bar.finish_and_clear();
        }
    }

    fn note(&self, text: &str) {
        if !self.quiet {
            output::note(text);
        }
    }
}

impl Now {
    fn advance(&mut self, steps: u64) {
        self.done = self.done.saturating_add(steps);
        let elapsed = self.started.elapsed();
        if elapsed < QUIET_FOR {
            return;
        }
        if output::stderr_is_terminal() {
            let bar = self.bar.get_or_insert_with(|| new_bar(&self.what, self.total, elapsed));
            bar.set_position(self.done);
        } else if self.last.elapsed() >= LINE_EVERY && self.done < self.total {
            self.last = Instant::now();
            output::note(&line(&self.what, self.done, self.total, elapsed));
        }
    }
}

fn new_bar(what: &str, total: u64, elapsed: Duration) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}, {eta} left");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_style(style).with_elapsed(elapsed);
    bar.set_message(output::printable(what).into_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn line(what: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let percent = u128::from(done) * 100 / u128::from(total.max(1));
    let left = elapsed.mul_f64(total.saturating_sub(done) as f64 / done.max(1) as f64);
    format!("{what}: {percent} %, {} left", units::duration(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_what_is_left() {
        assert_eq!(line("forward pass", 25, 100, Duration::from_secs(10)), "forward pass: 25 %, 30.0 s left");
        assert_eq!(line("x", 0, 0, Duration::ZERO), "x: 0 %, 0.00 s left");
    }
}
