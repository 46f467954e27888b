//! `ggufsmith devices`.

use crate::failure::Failure;

/// Show the GPUs: what they are, whether their kernels write the CPU's bytes, and how fast
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl Arguments {
    /// Test and measure every adapter.
    #[cfg(feature = "gpu")]
    pub fn run(&self) -> Result<(), Failure> {
        with_gpu::run(self.json)
    }

    /// There are none in this build.
    #[cfg(not(feature = "gpu"))]
    pub fn run(&self) -> Result<(), Failure> {
        Err(Failure::new("this build cannot use a GPU").hint("build it with the feature `gpu`, which is on by default"))
    }
}

#[cfg(feature = "gpu")]
mod with_gpu {
    use crate::failure::Failure;
    use crate::output;
    use crate::table::{Align, Table};
    use crate::units;
    use ggufsmith_gpu::{AdapterReport, KernelReport, SelfTest, examine};
    use serde::Serialize;
    use std::time::Duration;

    /// How long each kernel is measured.
    const TIME: Duration = Duration::from_millis(100);

    #[derive(Debug, Serialize)]
    struct Adapter {
        name: String,
        kind: &'static str,
        backend: &'static str,
        driver: String,
        driver_info: String,
        vendor: u32,
        max_buffer_bytes: u64,
        max_storage_binding_bytes: u64,
        max_workgroups: u32,
        max_invocations: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        kernels: Vec<Kernel>,
    }

    #[derive(Debug, Serialize)]
    struct Kernel {
        kernel: &'static str,
        source: String,
        self_test: String,
        passed: bool,
        gpu_bytes_per_second: Option<f64>,
        cpu_bytes_per_second: f64,
    }

    pub fn run(json: bool) -> Result<(), Failure> {
        let adapters: Vec<Adapter> = examine(TIME)?.into_iter().map(Adapter::from).collect();
        if json {
            return output::json(&adapters);
        }
        output::data(&adapters.iter().map(Adapter::text).collect::<Vec<_>>().join("\n"))
    }

    impl From<AdapterReport> for Adapter {
        fn from(report: AdapterReport) -> Self {
            let AdapterReport { adapter, kernels } = report;
            let (kernels, error) = match kernels {
                Ok(kernels) => (kernels.into_iter().map(Kernel::from).collect(), None),
                Err(error) => (Vec::new(), Some(error.to_string())),
            };
            Adapter {
                name: adapter.name,
                kind: adapter.kind.name(),
                backend: adapter.backend,
                driver: adapter.driver,
                driver_info: adapter.driver_info,
                vendor: adapter.vendor,
                max_buffer_bytes: adapter.limits.max_buffer_bytes,
                max_storage_binding_bytes: adapter.limits.max_storage_binding_bytes,
                max_workgroups: adapter.limits.max_workgroups,
                max_invocations: adapter.limits.max_invocations,
                error,
                kernels,
            }
        }
    }

    impl From<KernelReport> for Kernel {
        fn from(report: KernelReport) -> Self {
            let passed = report.self_test.passed();
            let self_test = match report.self_test {
                SelfTest::Passed { blocks, left_to_cpu } => {
                    format!("passed ({left_to_cpu} of {blocks} hostile blocks left to the CPU)")
                }
                SelfTest::Failed { blocks, wrong } => format!("FAILED: {wrong} of {blocks} blocks wrong"),
                SelfTest::Error(error) => format!("ERROR: {error}"),
                SelfTest::Skipped => "skipped".to_owned(),
            };
            Kernel {
                kernel: report.kernel,
                source: format!("{:?}", report.words),
                self_test,
                passed,
                gpu_bytes_per_second: report.gpu_bytes_per_second,
                cpu_bytes_per_second: report.cpu_bytes_per_second,
            }
        }
    }

    impl Adapter {
        fn text(&self) -> String {
            let mut text = format!(
                "{}\n  {} through {}, driver {} {}\n  buffers up to {}, storage bindings up to {}\n",
                output::printable(&self.name),
                self.kind,
                self.backend,
                output::printable(&self.driver),
                output::printable(&self.driver_info),
                units::bytes(self.max_buffer_bytes),
                units::bytes(self.max_storage_binding_bytes),
            );
            if let Some(error) = &self.error {
                text.push_str(&format!("  cannot be used: {}\n", output::printable(error)));
                return text;
            }
            let mut table = Table::new([
                ("kernel", Align::Left),
                ("source", Align::Left),
                ("this device", Align::Right),
                ("one CPU thread", Align::Right),
                ("self-test", Align::Left),
            ]);
            let rate = |bytes_per_second: f64| format!("{:.2} GB/s", bytes_per_second / 1e9);
            for kernel in &self.kernels {
                table.row([
                    kernel.kernel.to_owned(),
                    kernel.source.clone(),
                    kernel.gpu_bytes_per_second.map_or_else(|| "-".to_owned(), rate),
                    rate(kernel.cpu_bytes_per_second),
                    kernel.self_test.clone(),
                ]);
            }
            table.render("  ", &mut text);
            text
        }
    }
}
