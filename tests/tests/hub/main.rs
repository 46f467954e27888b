//! The Hub, with the real binary against a server on loopback.

mod case;
mod local_faults;
mod push;
mod push_faults;
mod push_wishes;
mod python;
mod read;
mod read_faults;
mod stream;
mod xet;

use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;

/// A test of this suite; it fails with what differs.
type Test = fn() -> Result<(), String>;

fn plain(name: &str, test: Test) -> Trial {
    Trial::test(name, move || test().map_err(Failed::from))
}

/// An error unless it holds.
fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Most of the time they wait.
    arguments.test_threads = arguments.test_threads.or(Some(8));
    let mut trials = read::trials();
    trials.extend(read_faults::trials());
    trials.extend(stream::trials());
    trials.extend(python::trials());
    trials.extend(push::trials());
    trials.extend(push_faults::trials());
    trials.extend(push_wishes::trials());
    trials.extend(xet::trials());
    trials.extend(local_faults::trials());
    libtest_mimic::run(&arguments, trials).exit_code()
}
