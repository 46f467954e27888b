//! The registry: one file per format, one line per format and per encoder.

use crate::encoder::Encoder;
use crate::format::Format;
use crate::layouts::LAYOUTS;

pub mod bf16;
pub mod f16;
pub mod f32;
pub mod iq1_m;
pub mod iq1_s;
pub mod iq2_s;
pub mod iq2_xs;
pub mod iq2_xxs;
pub mod iq3_s;
pub mod iq3_xxs;
pub mod iq4_nl;
pub mod iq4_xs;
pub mod mxfp4;
pub mod nvfp4;
pub mod q1_0;
pub mod q2_0;
pub mod q2_k;
pub mod q3_k;
pub mod q4_0;
pub mod q4_1;
pub mod q4_k;
pub mod q5_0;
pub mod q5_1;
pub mod q5_k;
pub mod q6_k;
pub mod q8_0;
pub mod tq1_0;
pub mod tq2_0;

/// Every format that can be decoded, by `ggml_id`.
pub static FORMATS: &[&Format] = &[
    &f32::FORMAT,
    &f16::FORMAT,
    &q4_0::FORMAT,
    &q4_1::FORMAT,
    &q5_0::FORMAT,
    &q5_1::FORMAT,
    &q8_0::FORMAT,
    &q2_k::FORMAT,
    &q3_k::FORMAT,
    &q4_k::FORMAT,
    &q5_k::FORMAT,
    &q6_k::FORMAT,
    &iq2_xxs::FORMAT,
    &iq2_xs::FORMAT,
    &iq3_xxs::FORMAT,
    &iq1_s::FORMAT,
    &iq4_nl::FORMAT,
    &iq3_s::FORMAT,
    &iq2_s::FORMAT,
    &iq4_xs::FORMAT,
    &iq1_m::FORMAT,
    &bf16::FORMAT,
    &tq1_0::FORMAT,
    &tq2_0::FORMAT,
    &mxfp4::FORMAT,
    &nvfp4::FORMAT,
    &q1_0::FORMAT,
    &q2_0::FORMAT,
];

/// Every encoder. The first one of a format is its default.
pub static ENCODERS: &[&Encoder] = &[
    &f32::ENCODER,
    &f16::ENCODER,
    &q4_0::ENCODER,
    &q4_1::ENCODER,
    &q5_0::ENCODER,
    &q5_1::ENCODER,
    &q8_0::ENCODER,
    &q2_k::ENCODER,
    &q3_k::ENCODER,
    &q4_k::ENCODER,
    &q5_k::ENCODER,
    &q6_k::ENCODER,
    &iq4_nl::ENCODER,
    &iq4_xs::ENCODER,
    &bf16::ENCODER,
    &tq1_0::ENCODER,
    &tq2_0::ENCODER,
    &mxfp4::ENCODER,
    &q1_0::ENCODER,
    &q2_0::ENCODER,
];

/// The format with this `ggml_type` id, of [`FORMATS`] or [`LAYOUTS`].
pub fn by_id(ggml_id: u32) -> Option<&'static Format> {
    FORMATS.iter().copied().chain(LAYOUTS).find(|f| f.ggml_id == ggml_id)
}

/// The default encoder of a format, if it can be written.
pub fn encoder_of(format: &Format) -> Option<&'static Encoder> {
    ENCODERS.iter().copied().find(|e| e.format == format)
}
