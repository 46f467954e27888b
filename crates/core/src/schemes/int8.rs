//! `LLM.int8` of bitsandbytes (`int8_vectorwise_quant`): per matrix row one F32, the largest magnitude `SCB`, per element a signed
//! byte `CB`. The value is `CB * SCB / 127`, computed in F32 from the left, each step rounded.

/// One element.
#[inline]
pub fn decode(code: i8, scale: f32) -> f32 {
    f32::from(code) * scale / 127.0
}
