//! Rotary frequencies: what each kind of scaling makes of `theta`, as transformers computes it and as llama.cpp does.

use crate::decoder::{DecoderError, DynamicRope, Rope as RotaryPositions, RopeLayout};
use crate::gated::Shape;
use crate::rope::{BETA_FAST, BETA_SLOW, Llama3, Rope, Scaling, mscale};
use ggufsmith_gguf::{Array, Metadata, Value};
use std::f64::consts::PI;

/// `theta^(-2i / dims)`.
fn plain(theta: f64, dims: u32) -> Vec<f64> {
    (0..dims / 2).map(|i| theta.powf(-2.0 * f64::from(i) / f64::from(dims))).collect()
}

impl Rope {
    /// Frequencies and magnitude of `modeling_rope_utils.py` (transformers 4.57.6), for texts within `n_ctx` positions.
    pub(crate) fn transformers(&self, dims: u32, n_ctx: u32) -> Result<RotaryPositions, DecoderError> {
        let mut inv_freq = plain(self.theta, dims);
        let (mut magnitude, mut dynamic) = (1.0, None);
        match &self.scaling {
            Scaling::None => {}
            Scaling::Dynamic { factor } => dynamic = Some(DynamicRope { beyond: n_ctx, theta: self.theta, factor: *factor }),
            Scaling::Linear { factor } => inv_freq.iter_mut().for_each(|freq| *freq /= factor),
            Scaling::Llama3(llama3) => llama3.scale(&mut inv_freq),
            Scaling::Yarn(yarn) => {
                let context = if yarn.original_context == 0 { n_ctx } else { yarn.original_context };
                blend(&mut inv_freq, self.theta, yarn.factor, f64::from(context), yarn.beta_fast(), yarn.beta_slow());
                magnitude = yarn.magnitude();
            }
            Scaling::LongRope(_) => {
                let why = "its factors depend on the text's length";
                return Err(DecoderError::Unsupported { what: "rope_scaling longrope".into(), why });
            }
        }
        Ok(RotaryPositions { layout: RopeLayout::Halves, inv_freq, factors: None, magnitude, long: None, dynamic })
    }
}

impl Llama3 {
    /// `_compute_llama3_parameters`.
    fn scale(&self, inv_freq: &mut [f64]) {
        let (low, high) = (self.original_context / self.low_freq_factor, self.original_context / self.high_freq_factor);
        for freq in inv_freq {
            let wavelen = 2.0 * PI / *freq;
            if wavelen > low {
                *freq /= self.factor;
            } else if wavelen >= high {
                let span = self.high_freq_factor - self.low_freq_factor;
                let smooth = (self.original_context / wavelen - self.low_freq_factor) / span;
                *freq = (1.0 - smooth) * *freq / self.factor + smooth * *freq;
            }
        }
    }
}

/// Rotary positions of a file of architecture `arch`, as llama.cpp's loader and `ggml_rope_ext` read its keys. `factors`: the name of
/// the tensor with frequency factors, where the file has one.
pub(crate) fn llama_cpp(
    metadata: &Metadata,
    arch: &str,
    dims: u32,
    n_ctx: u32,
    layout: RopeLayout,
    factors: Option<String>,
) -> Result<RotaryPositions, DecoderError> {
    let key = |name: &str| format!("{arch}.rope.{name}");
    let theta = f64::from(metadata.lookup::<f32>(&key("freq_base"))?.unwrap_or(10_000.0));
    let kind = metadata.lookup::<&str>(&key("scaling.type"))?.unwrap_or("linear");
    let factor = match metadata.lookup::<f32>(&key("scaling.factor"))? {
        Some(factor) => factor,
        None => metadata.lookup::<f32>(&key("scale_linear"))?.unwrap_or(0.0),
    };
    let factor = if factor == 0.0 { 1.0 } else { f64::from(factor) };
    let mut magnitude = f64::from(metadata.lookup::<f32>(&key("scaling.attn_factor"))?.unwrap_or(1.0));
    let mut inv_freq = plain(theta, dims);
    match kind {
        "none" => {}
        "linear" => inv_freq.iter_mut().for_each(|freq| *freq /= factor),
        "yarn" => {
            let context = metadata.lookup::<u32>(&key("scaling.original_context_length"))?.unwrap_or(n_ctx);
            let beta = |name: &str, usual: f64| {
                let own = if READ_BETAS.contains(&arch) { metadata.lookup::<f32>(&key(name))? } else { None };
                Ok::<_, DecoderError>(own.map_or(usual, f64::from))
            };
            let (fast, slow) = (beta("scaling.yarn_beta_fast", BETA_FAST)?, beta("scaling.yarn_beta_slow", BETA_SLOW)?);
            blend(&mut inv_freq, theta, factor, f64::from(context), fast, slow);
            magnitude *= mscale(factor);
        }
        "longrope" => {
            let why = "its factors depend on the text's length";
            return Err(DecoderError::Unsupported { what: format!("{} = longrope", key("scaling.type")), why });
        }
        other => {
            let expected = "none, linear, yarn or longrope".to_owned();
            return Err(DecoderError::Value { key: key("scaling.type"), expected, found: format!("{other:?}") });
        }
    }
    Ok(RotaryPositions { layout, inv_freq, factors, magnitude, long: None, dynamic: None })
}

/// The architectures whose loaders read `rope.scaling.yarn_beta_fast` and `yarn_beta_slow`; others take no `yarn_*` key.
pub(crate) const READ_BETAS: [&str; 1] = ["mistral3"];

/// As [`llama_cpp`], halves of a head together, for layers that have a `theta` of their own and the file's scaling.
pub(crate) fn llama_cpp_at(metadata: &Metadata, arch: &str, theta: f32, shape: &Shape) -> Result<RotaryPositions, DecoderError> {
    let mut own = metadata.clone();
    own.set(format!("{arch}.rope.freq_base"), theta);
    llama_cpp(&own, arch, shape.n_rot, shape.n_ctx, RopeLayout::Halves, None)
}

/// What llama.cpp takes without `rope.freq_base`.
pub(crate) const THETA: f32 = 10_000.0;

/// Rotary positions without scaling.
pub(crate) fn unscaled(theta: f64, dims: u32, layout: RopeLayout) -> RotaryPositions {
    RotaryPositions { layout, inv_freq: plain(theta, dims), factors: None, magnitude: 1.0, long: None, dynamic: None }
}

/// Which layers of a file have a window (`load_swa_pattern`): as `attention.sliding_window_pattern` says, or all but every `known`-th.
pub(crate) fn windowed_layers(metadata: &Metadata, arch: &str, n_layer: u32, known: u32) -> Result<Vec<bool>, DecoderError> {
    let key = format!("{arch}.attention.sliding_window_pattern");
    match metadata.get(&key) {
        None => Ok((0..n_layer).map(|layer| (layer + 1) % known != 0).collect()),
        Some(Value::Array(Array::Bool(layers))) if layers.len() as u64 == u64::from(n_layer) => Ok(layers.clone()),
        Some(other) => {
            let expected = format!("{n_layer} booleans, one for each block");
            Err(DecoderError::Value { key, expected, found: other.short(40) })
        }
    }
}

/// YaRN (arXiv 2309.00071, section 3.2): slow frequencies are interpolated, fast ones are not, those between are blended.
fn blend(inv_freq: &mut [f64], theta: f64, factor: f64, context: f64, beta_fast: f64, beta_slow: f64) {
    let dims = 2.0 * inv_freq.len() as f64;
    let dimension = |rotations: f64| dims * (context / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let low = dimension(beta_fast).floor().max(0.0);
    let high = dimension(beta_slow).ceil().min(dims - 1.0);
    let width = (high - low).max(0.001);
    for (i, freq) in inv_freq.iter_mut().enumerate() {
        let interpolated = ((i as f64 - low) / width).clamp(0.0, 1.0);
        *freq = *freq / factor * interpolated + *freq * (1.0 - interpolated);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rope::Yarn;

    /// The same model as both sides describe it.
    #[test]
    fn both_sides_agree_on_every_scaling() {
        let yarn = |attention| {
            let (extrapolation, beta_fast, beta_slow) = (None, None, None);
            Scaling::Yarn(Yarn { factor: 4.0, original_context: 2048, extrapolation, attention, beta_fast, beta_slow })
        };
        for scaling in [Scaling::None, Scaling::Linear { factor: 2.5 }, yarn(None)] {
            let rope = Rope { theta: 10_000.0, scaling, swa_theta: None, partial: None };
            let mut metadata = Metadata::new();
            for (key, value) in rope.hparams() {
                metadata.set(format!("llama.{key}"), value);
            }
            let ours = llama_cpp(&metadata, "llama", 64, 8192, RopeLayout::Halves, None).unwrap();
            let theirs = rope.transformers(64, 8192).unwrap();
            assert!(ours.inv_freq.iter().zip(&theirs.inv_freq).all(|(a, b)| (a / b - 1.0).abs() < 1e-6), "{rope:?}");
            assert!((ours.magnitude - theirs.magnitude).abs() < 1e-6, "{rope:?}");
        }
        // A magnitude of the model's own has no key that the engine reads in this architecture: the two sides must differ.
        let own = Rope { theta: 10_000.0, scaling: yarn(Some(1.5)), swa_theta: None, partial: None };
        assert_eq!(own.transformers(64, 8192).unwrap().magnitude, 1.5);
    }

    #[test]
    fn llama3_matches_its_factors() {
        let llama3 = Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 64.0 };
        let rope = Rope { theta: 500_000.0, scaling: Scaling::Llama3(llama3), swa_theta: None, partial: None };
        let scaled = rope.transformers(64, 256).unwrap().inv_freq;
        let factors = rope.freq_factors(64).unwrap();
        for ((plain, factor), scaled) in plain(500_000.0, 64).iter().zip(factors).zip(scaled) {
            assert!((plain / f64::from(factor) / scaled - 1.0).abs() < 1e-5);
        }
    }
}
