//! The binary with `--device gpu`, and `devices`.

use crate::{bard, expected, with_gpu};
use ggufsmith_tests::binary::{command, finish, ggufsmith};
use ggufsmith_tests::{fixture, outputs, reference, scratch};
use libtest_mimic::{Failed, Trial};
use std::path::Path;

pub fn trials() -> Vec<Trial> {
    vec![
        with_gpu("binary::bard", bard(), |source| convert(&source, "bard.expected.json")),
        with_gpu("binary::smollm2", reference::smollm2(), |source| convert(&source, "smollm2/expected.json")),
        with_gpu("binary::devices", bard(), |_| devices()),
        Trial::test("binary::no_driver", || no_driver().map_err(Failed::from)),
    ]
}

fn convert(source: &Path, table: &str) -> Result<(), String> {
    let (out, expected) = (scratch(), expected(table));
    let mut args = vec!["convert", "--device", "gpu", source.to_str().unwrap(), "--out", out.path().to_str().unwrap()];
    args.extend(expected.iter().flat_map(|(name, _)| ["--type", name.as_str()]));
    let run = ggufsmith(&args);
    run.ok()?;
    if !run.stderr.contains("on the GPU") {
        return Err(run.describe("the GPU's share in the summary"));
    }
    outputs::check(out.path(), &expected)
}

/// Every kernel passes on every adapter.
fn devices() -> Result<(), String> {
    let run = ggufsmith(&["devices", "--json"]);
    let adapters = run.json()?;
    let adapters = adapters.as_array().filter(|list| !list.is_empty()).ok_or_else(|| run.describe("a list of adapters"))?;
    for adapter in adapters {
        let kernels = adapter["kernels"].as_array().filter(|list| !list.is_empty()).ok_or_else(|| run.describe("kernels"))?;
        if !kernels.iter().all(|kernel| kernel["passed"] == true && kernel["gpu_bytes_per_second"].as_f64() > Some(0.0)) {
            return Err(run.describe("every kernel to pass"));
        }
    }
    Ok(())
}

/// A GPU that was asked for and is not there: exit code 2, why, what to do, and no output.
fn no_driver() -> Result<(), String> {
    let out = scratch();
    let bard = fixture("bard");
    let args = ["convert", "--device", "gpu", bard.to_str().unwrap(), "--type", "Q8_0", "--out", out.path().to_str().unwrap()];
    let mut command = command(&args);
    // The Vulkan loader finds the drivers that these two name, under its new and its old name.
    command.env("VK_DRIVER_FILES", "/nonexistent.json").env("VK_ICD_FILENAMES", "/nonexistent.json");
    let run = finish(command);
    let says = |text: &str| run.stderr.contains(text);
    if run.code != Some(2) || !says("no usable GPU") || !says("Vulkan") || !says("mesa-vulkan-drivers") {
        return Err(run.describe("exit code 2, the reason and how to install a driver"));
    }
    match outputs::names(out.path()) {
        names if names.is_empty() => Ok(()),
        names => Err(format!("{names:?} were written")),
    }
}
