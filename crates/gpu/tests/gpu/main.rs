//! Tests that need an adapter; any will do, a software one (lavapipe) too.
//!
//! Without one they are reported as ignored, or fail where `CI=true`: they never pass unrun.
#![allow(clippy::print_stdout)] // which adapter the results are about
use ggufsmith_gpu::{AdapterInfo, adapters};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

mod chunks;
mod common;
mod controls;
mod exact;
mod faults;
mod functions;
mod schemes;

fn main() {
    let arguments = Arguments::from_args();
    let adapter = adapters().into_iter().next();
    if let (Some(adapter), false) = (&adapter, arguments.list) {
        println!("adapter: {adapter}, {} {}", adapter.driver, adapter.driver_info);
    }
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    let trials =
        [chunks::trials(), controls::trials(), exact::trials(), faults::trials(), functions::trials(), schemes::trials()];
    let trials = trials.into_iter().flatten().map(|test| trial(test, adapter.as_ref(), ci)).collect();
    libtest_mimic::run(&arguments, trials).exit();
}

/// A test by name.
type Test = (String, Box<dyn FnOnce() + Send>);

fn trial((name, test): Test, adapter: Option<&AdapterInfo>, ci: bool) -> Trial {
    const REASON: &str = "there is no adapter; on Debian and Ubuntu install mesa-vulkan-drivers and libvulkan1";
    let has_adapter = adapter.is_some();
    Trial::ignorable_test(name, move || match (has_adapter, ci) {
        (true, _) => {
            test();
            Ok(Completion::Completed)
        }
        (false, true) => Err(Failed::from(REASON)),
        (false, false) => Ok(Completion::ignored_with(REASON)),
    })
}
