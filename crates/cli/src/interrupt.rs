//! Ctrl-C, SIGTERM and SIGHUP.

use crate::cli::INTERRUPTED;
use crate::failure::Failure;
use crate::output;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// After this time a user is told that the request to stop was heard.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a second signal waits for the names of temporary files: they are told when all of them are created.
const GRACE: Duration = Duration::from_millis(200);

/// Notices that the user wants to stop.
///
/// The first signal asks: the run stops at the next chunk and removes its temporary files. The second one does not wait: it
/// removes what it was told of and ends the process.
#[derive(Debug, Clone)]
pub struct Interrupt {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    asked: AtomicBool,
    signals: AtomicU32,
    to_remove: OnceLock<Vec<PathBuf>>,
}

impl Interrupt {
    /// Listen from now on. A process has one listener: the second call returns the first one's.
    ///
    /// # Errors
    /// [`Failure`] where the system does not let us.
    pub fn listen() -> Result<Self, Failure> {
        static LISTENING: OnceLock<Interrupt> = OnceLock::new();
        if let Some(listening) = LISTENING.get() {
            return Ok(listening.clone());
        }
        let state = Arc::<State>::default();
        let shared = state.clone();
        ctrlc::set_handler(move || {
            shared.asked.store(true, Ordering::Relaxed);
            if shared.signals.fetch_add(1, Ordering::Relaxed) > 0 {
                shared.end();
            }
            std::thread::spawn(|| {
                std::thread::sleep(PATIENCE);
                output::note("stopping; once more ends at once");
            });
        })?;
        Ok(LISTENING.get_or_init(|| Interrupt { state }).clone())
    }

    /// Set once the user wants to stop.
    pub fn flag(&self) -> &AtomicBool {
        &self.state.asked
    }

    /// # Errors
    /// [`Failure::Interrupted`] once the user wants to stop.
    pub fn check(&self) -> Result<(), Failure> {
        if self.state.asked.load(Ordering::Relaxed) { Err(Failure::Interrupted) } else { Ok(()) }
    }

    /// Files of ours that a second signal removes; the first call counts.
    pub fn remove_at_end(&self, files: &[PathBuf]) {
        self.state.to_remove.get_or_init(|| files.to_vec());
    }
}

impl State {
    /// Remove the files and end the process, whatever the other threads do.
    fn end(&self) -> ! {
        let patience = Instant::now() + GRACE;
        while self.to_remove.get().is_none() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
        for file in self.to_remove.get().into_iter().flatten() {
            // Best effort: it may have been renamed or removed meanwhile.
            let _ = std::fs::remove_file(file);
        }
        // Threads that are stuck in a system call (a full disk, a dead network share) are why a second signal is sent.
        #[allow(clippy::exit)]
        std::process::exit(i32::from(INTERRUPTED))
    }
}
