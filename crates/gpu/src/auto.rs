//! Whether a run takes a GPU unasked.

use crate::adapter::{AdapterInfo, Selection};
use crate::calibrate::Calibration;
use crate::error::GpuError;
use crate::gpu::{Gpu, Options};
use ggufsmith_core::{Encoder, Words};
use std::fmt;
use std::time::Duration;

/// How long the decision may measure.
const CALIBRATION_TIME: Duration = Duration::from_millis(100);

/// The decision.
pub enum Auto {
    /// The GPU joins the run.
    Joins(Gpu, Calibration),
    /// The run stays on the CPU.
    StaysAway(WhyNot),
}

/// Why a run does not take a GPU unasked.
#[derive(Debug, Clone, PartialEq)]
pub enum WhyNot {
    /// There is none, or it does not work.
    Unusable(GpuError),
    /// None of the run's encoders has a kernel that passed its self-test.
    NothingToDo(AdapterInfo),
    /// It adds too little.
    TooSlow(AdapterInfo, Calibration),
}

impl fmt::Display for WhyNot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WhyNot::Unusable(error) => error.fmt(f),
            WhyNot::NothingToDo(adapter) => write!(f, "{adapter} has no working kernel for the types of this run"),
            WhyNot::TooSlow(adapter, calibration) => {
                let (gain, least) = (100.0 * calibration.gain(), 100.0 * Calibration::WORTH_IT);
                write!(f, "{adapter} would change the CPU's throughput by {gain:+.0} %, less than {least:.0} %")
            }
        }
    }
}

/// Take a GPU for a run if `selection` allows one, it works, and it adds at least [`Calibration::WORTH_IT`] to what `cpu_threads`
/// threads encode without it. `encoders` are the run's, each with the word types it gets.
pub fn auto(selection: Selection, options: Options, encoders: &[(&'static Encoder, Words)], cpu_threads: usize) -> Auto {
    let gpu = match Gpu::open(selection, options) {
        Ok(gpu) => gpu,
        Err(error) => return Auto::StaysAway(WhyNot::Unusable(error)),
    };
    match gpu.calibrate(encoders, cpu_threads, CALIBRATION_TIME) {
        Err(error) => Auto::StaysAway(WhyNot::Unusable(error)),
        Ok(None) => Auto::StaysAway(WhyNot::NothingToDo(gpu.adapter().clone())),
        Ok(Some(calibration)) if calibration.is_worth_it() => Auto::Joins(gpu, calibration),
        Ok(Some(calibration)) => Auto::StaysAway(WhyNot::TooSlow(gpu.adapter().clone(), calibration)),
    }
}
