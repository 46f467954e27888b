//! `NF4` of bitsandbytes: codes of 4 bits for sixteen quantiles of the normal distribution, one F32 scale per block.
//! 4.5 bits per weight in blocks of 64.

use crate::scheme::{ASCENDING, FourBit};

/// bitsandbytes' `nf4`.
pub static SCHEME: FourBit = FourBit::new(
    "NF4",
    [
        -1.0,
        -0.696_192_8,
        -0.525_073_05,
        -0.394_917_5,
        -0.284_441_38,
        -0.184_773_43,
        -0.091_050_036,
        0.0,
        0.079_580_3,
        0.160_930_2,
        0.246_112_3,
        0.337_915_24,
        0.440_709_83,
        0.562_617,
        0.722_956_84,
        1.0,
    ],
    ASCENDING,
);
