//! Whole conversions with a GPU among the workers: the reference tools' bytes, whatever happens to it on the way.
//!
//! Any adapter will do, a software one (Mesa's lavapipe) too. What the binary cannot be made to suffer, `workers` does with the library.

mod binary;
mod workers;

use ggufsmith_gpu::adapters;
use ggufsmith_tests::{fixture, json, reference};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::path::PathBuf;
use std::process::ExitCode;

/// The types with kernels; `Q4_K_M` has tensors of another format, too, that are the CPU's.
const TYPES: [&str; 6] = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K_M"];

const NO_ADAPTER: &str = "there is no GPU adapter; on Debian and Ubuntu install mesa-vulkan-drivers and libvulkan1";

/// Needs an adapter and a model: without them ignored, on CI failed.
fn with_gpu<F>(name: &str, model: Option<PathBuf>, test: F) -> Trial
where
    F: FnOnce(PathBuf) -> Result<(), String> + Send + 'static,
{
    Trial::ignorable_test(name, move || {
        let missing = match model {
            None => reference::REASON,
            Some(_) if adapters().is_empty() => NO_ADAPTER,
            Some(model) => return test(model).map(|()| Completion::Completed).map_err(Failed::from),
        };
        if reference::required() { Err(Failed::from(missing)) } else { Ok(Completion::ignored_with(missing)) }
    })
}

fn bard() -> Option<PathBuf> {
    Some(fixture("bard"))
}

/// Type and sha256 of each of [`TYPES`], from a fixture's tables.
fn expected(table: &str) -> Vec<(String, String)> {
    let table = json(&fixture(table));
    let tool = |name: &str| if name == "Q8_0" { "sha256_converter" } else { "sha256_llama_quantize_from_bf16" };
    TYPES.map(|name| (name.to_owned(), table[tool(name)][name].as_str().unwrap_or("not in the fixture").to_owned())).into()
}

fn main() -> ExitCode {
    let mut trials = binary::trials();
    trials.extend(workers::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
