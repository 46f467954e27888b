//! Rotary position embedding: what config.json says about it, as GGUF keys and as frequency factors.

use crate::{ArchError, Config};
use ggufsmith_gguf::Value;

/// The rotary parameters of a text model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rope {
    /// `rope_theta`.
    pub(crate) theta: f64,
    pub(crate) scaling: Scaling,
    /// `rope_theta` of the layers with a window, where it is one of their own; they have no scaling.
    pub(crate) swa_theta: Option<f64>,
    /// `partial_rotary_factor`: the share of a head that turns.
    pub(crate) partial: Option<f64>,
}

/// What of the rotary parameters a family knows besides `rope_theta` and `rope_scaling`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// Nothing: all layers turn whole heads, alike.
    Plain,
    /// `partial_rotary_factor`.
    Partial,
    /// Layers with a window have parameters of their own: `rope_local_base_freq`, or `rope_parameters` by kind of layer.
    ByLayer,
}

/// How positions beyond the trained context are handled.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scaling {
    None,
    Linear {
        factor: f64,
    },
    Yarn(Yarn),
    LongRope(LongRope),
    /// Base frequency grown with the text's length: llama.cpp has nothing like it.
    Dynamic {
        factor: f64,
    },
    Llama3(Llama3),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Yarn {
    pub(crate) factor: f64,
    pub(crate) original_context: u32,
    pub(crate) extrapolation: Option<f64>,
    pub(crate) attention: Option<f64>,
    pub(crate) beta_fast: Option<f64>,
    pub(crate) beta_slow: Option<f64>,
}

/// What each frequency is divided by, in texts within the original context and beyond.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LongRope {
    pub(crate) long: Vec<f32>,
    pub(crate) short: Vec<f32>,
    pub(crate) attention: Option<f64>,
    pub(crate) factor: Option<f64>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Llama3 {
    pub(crate) factor: f64,
    pub(crate) low_freq_factor: f64,
    pub(crate) high_freq_factor: f64,
    pub(crate) original_context: f64,
}

/// Keys of `rope_scaling` that are read, or that change nothing beside `rope_type`.
const KNOWN: [&str; 15] = [
    "rope_type",
    "type",
    "rope_theta",
    "factor",
    "original_max_position_embeddings",
    "extrapolation_factor",
    "attention_factor",
    "attn_factor",
    "beta_fast",
    "beta_slow",
    "low_freq_factor",
    "high_freq_factor",
    "long_factor",
    "short_factor",
    "finetuned",
];

const CONTEXT: &str = "original_max_position_embeddings";

impl Rope {
    /// Read `rope_theta` with `rope_scaling`, or transformers 5's `rope_parameters`, which holds both.
    pub(crate) fn read(config: &Config, reads: Reads) -> Result<Self, ArchError> {
        let key = match (config.get("rope_parameters"), config.get("rope_scaling")) {
            (Some(_), Some(_)) => {
                let (first, second) = (config.path("rope_parameters"), config.path("rope_scaling"));
                return Err(ArchError::KeyConflict { first, second });
            }
            (Some(_), None) => "rope_parameters",
            _ => "rope_scaling",
        };
        let partial = if reads == Reads::Partial { config.opt_f64("partial_rotary_factor")? } else { None };
        let local = if reads == Reads::ByLayer { config.opt_f64("rope_local_base_freq")? } else { None };
        let Some(params) = config.section(key)? else {
            return Ok(Rope { theta: config.f64("rope_theta")?, scaling: Scaling::None, swa_theta: local, partial });
        };
        if reads == Reads::ByLayer
            && let Some(full) = params.section("full_attention")?
        {
            let sliding =
                params.section("sliding_attention")?.map(|sliding| Rope::of_params(config, &sliding, reads)).transpose()?;
            if let Some(Rope { scaling, .. }) = sliding.as_ref().filter(|rope| rope.scaling != Scaling::None) {
                let found = format!("{scaling:?}");
                return Err(params.wrong(
                    "sliding_attention",
                    "without scaling: the engine has none in these layers",
                    &found.into(),
                ));
            }
            let swa_theta = sliding.map(|rope| rope.theta);
            return Ok(Rope { swa_theta, ..Rope::of_params(config, &full, reads)? });
        }
        let rope = Rope::of_params(config, &params, reads)?;
        Ok(Rope { swa_theta: local, partial: rope.partial.or(partial), ..rope })
    }

    /// Read one set of parameters; what it lacks may stand outside.
    fn of_params(config: &Config, params: &Config, reads: Reads) -> Result<Self, ArchError> {
        const PARTIAL: &str = "partial_rotary_factor";
        let known = |key| KNOWN.contains(&key) || (reads == Reads::Partial && key == PARTIAL);
        let harmless = |key, value: &_| known(key) || crate::keys::is_neutral(key, value).unwrap_or(value.is_null());
        if let Some((key, value)) = params.entries().find(|(key, value)| !harmless(key, value)) {
            let (key, class) = (params.path(key), config.class().name);
            return Err(ArchError::ForeignKey { key, value: crate::config::shown(value), class });
        }
        let partial = if reads == Reads::Partial { params.opt_f64(PARTIAL)? } else { None };
        let theta = match params.opt_f64("rope_theta")? {
            Some(theta) => theta,
            None => config.f64("rope_theta")?,
        };
        let scaling = match rope_type(params)? {
            None if params.entries().any(|(key, value)| !["rope_theta", PARTIAL].contains(&key) && !value.is_null()) => {
                return Err(params.wrong("rope_type", "given where the other keys are", &serde_json::Value::Null));
            }
            None | Some("default") => Scaling::None,
            Some("linear") => Scaling::Linear { factor: params.f64("factor")? },
            Some("yarn") => Scaling::Yarn(Yarn {
                factor: params.f64("factor")?,
                original_context: if params.has(CONTEXT) { params } else { config }.positive_u32(CONTEXT)?,
                extrapolation: params.opt_f64("extrapolation_factor")?,
                attention: params.opt_f64(if params.has("attention_factor") { "attention_factor" } else { "attn_factor" })?,
                beta_fast: params.opt_f64("beta_fast")?,
                beta_slow: params.opt_f64("beta_slow")?,
            }),
            Some("longrope" | "su") => {
                let factors =
                    |key| Ok::<_, ArchError>(params.opt_numbers(key)?.unwrap_or_default().iter().map(|&f| f as f32).collect());
                Scaling::LongRope(LongRope {
                    long: factors("long_factor")?,
                    short: factors("short_factor")?,
                    attention: params.opt_f64("attention_factor")?,
                    factor: params.opt_f64("factor")?,
                })
            }
            Some("dynamic") => Scaling::Dynamic { factor: params.f64("factor")? },
            Some("llama3") => Scaling::Llama3(Llama3 {
                factor: params.f64("factor")?,
                low_freq_factor: params.f64("low_freq_factor")?,
                high_freq_factor: params.f64("high_freq_factor")?,
                original_context: if params.has(CONTEXT) { params } else { config }.f64(CONTEXT)?,
            }),
            Some(other) => {
                let expected = "one of default, linear, yarn, longrope, su, dynamic, llama3";
                return Err(params.wrong("rope_type", expected, &other.into()));
            }
        };
        let wrong = |key, expected, found: f64| Err(params.wrong(key, expected, &found.into()));
        match &scaling {
            Scaling::Yarn(yarn) if yarn.beta_fast() <= yarn.beta_slow() => {
                wrong("beta_fast", "above beta_slow", yarn.beta_fast())
            }
            Scaling::Llama3(llama3) if llama3.high_freq_factor <= llama3.low_freq_factor => {
                wrong("high_freq_factor", "above low_freq_factor", llama3.high_freq_factor)
            }
            _ => Ok(Rope { theta, scaling, swa_theta: None, partial }),
        }
    }

    /// `rope.scaling.*` and `rope.freq_base` without their prefix, in the order of the reference converter.
    pub(crate) fn hparams(&self) -> Vec<(&'static str, Value)> {
        let f32 = |value: f64| Value::F32(value as f32);
        let mut list = Vec::new();
        match &self.scaling {
            Scaling::None | Scaling::Dynamic { .. } | Scaling::Llama3(_) => {}
            Scaling::Linear { factor } => {
                list.extend([("rope.scaling.type", "linear".into()), ("rope.scaling.factor", f32(*factor))]);
            }
            Scaling::Yarn(yarn) => {
                list.extend([("rope.scaling.type", "yarn".into()), ("rope.scaling.factor", f32(yarn.factor))]);
                list.push(("rope.scaling.original_context_length", Value::U32(yarn.original_context)));
                let optional = [
                    ("rope.scaling.yarn_ext_factor", yarn.extrapolation),
                    ("rope.scaling.yarn_attn_factor", yarn.attention),
                    ("rope.scaling.yarn_beta_fast", yarn.beta_fast),
                    ("rope.scaling.yarn_beta_slow", yarn.beta_slow),
                ];
                list.extend(optional.into_iter().filter_map(|(key, value)| Some((key, f32(value?)))));
            }
            Scaling::LongRope(_) => list.push(("rope.scaling.type", "longrope".into())),
        }
        list.push(("rope.freq_base", f32(self.theta)));
        list.extend(self.swa_theta.map(|theta| ("rope.freq_base_swa", f32(theta))));
        list
    }

    /// That no frequency is divided by a factor of its own.
    ///
    /// # Errors
    /// [`ArchError::KeyValue`].
    pub(crate) fn check_unfactored(&self, config: &Config) -> Result<(), ArchError> {
        match self.scaling {
            Scaling::None | Scaling::Linear { .. } | Scaling::Yarn(_) | Scaling::Dynamic { .. } => Ok(()),
            Scaling::Llama3(_) | Scaling::LongRope(_) => {
                let key = if config.get("rope_parameters").is_some() { "rope_parameters" } else { "rope_scaling" };
                let expected = "a kind without frequency factors: the engine has none in this architecture";
                let found = config.get(key).cloned().unwrap_or_default();
                Err(config.wrong(key, expected, &found))
            }
        }
    }

    /// Those of layers with a window: no scaling, and a `theta` of their own where there is one.
    pub(crate) fn unscaled(&self) -> Self {
        Rope { theta: self.swa_theta.unwrap_or(self.theta), scaling: Scaling::None, ..self.clone() }
    }

    /// What the model does and an engine that knows no frequency factors but `rope_freqs`, and none of YaRN's keys but factor and
    /// original context, does not.
    pub(crate) fn engine_warnings(&self) -> Vec<String> {
        self.warnings_beside(&[])
    }

    /// The same where the engine knows some of YaRN's other keys, too.
    pub(crate) fn warnings_beside(&self, known: &[&str]) -> Vec<String> {
        let text = match &self.scaling {
            Scaling::LongRope(_) => {
                "rope_scaling longrope: its factors have no place in this architecture's files; results will differ"
            }
            Scaling::Dynamic { .. } => {
                "rope_scaling dynamic: the engine has nothing like it; texts beyond max_position_embeddings will suffer"
            }
            Scaling::Yarn(yarn) => {
                let ignored = yarn.unusual().into_iter().filter(|(key, ..)| !known.contains(key));
                return ignored.map(|(key, value, usual)| {
                    format!("rope_scaling yarn, {key} = {value}: the engine does not read it in this architecture, it takes {usual}; results will differ")
                }).collect();
            }
            Scaling::None | Scaling::Linear { .. } | Scaling::Llama3(_) => return Vec::new(),
        };
        vec![text.to_owned()]
    }

    /// What each rotary frequency is divided by (`rope_freqs.weight`, `head_dim / 2` values), where the scaling needs it.
    pub(crate) fn freq_factors(&self, head_dim: u32) -> Option<Vec<f32>> {
        match &self.scaling {
            Scaling::Llama3(llama3) => Some(llama3.freq_factors(self.theta, head_dim)),
            _ => None,
        }
    }
}

impl Yarn {
    /// How fast dimensions turn that are left alone, in turns within the original context; 0 counts as absent.
    pub(crate) fn beta_fast(&self) -> f64 {
        self.beta_fast.filter(|&beta| beta != 0.0).unwrap_or(BETA_FAST)
    }

    /// How slowly those turn that are interpolated.
    pub(crate) fn beta_slow(&self) -> f64 {
        self.beta_slow.filter(|&beta| beta != 0.0).unwrap_or(BETA_SLOW)
    }

    /// What rotated elements are multiplied by.
    pub(crate) fn magnitude(&self) -> f64 {
        self.attention.unwrap_or_else(|| mscale(self.factor))
    }

    /// The settings that are not what they are by themselves: key, value, usual value.
    fn unusual(&self) -> Vec<(&'static str, f64, f64)> {
        let mut settings = vec![
            ("attention_factor", self.magnitude(), mscale(self.factor)),
            ("beta_fast", self.beta_fast(), BETA_FAST),
            ("beta_slow", self.beta_slow(), BETA_SLOW),
        ];
        settings.retain(|(_, value, usual)| (value - usual).abs() > 1e-6);
        settings
    }
}

/// YaRN's attention temperature where a model has none of its own.
pub(crate) fn mscale(factor: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 }
}

/// YaRN's `beta_fast` and `beta_slow` where a model has none of its own.
pub(crate) const BETA_FAST: f64 = 32.0;
pub(crate) const BETA_SLOW: f64 = 1.0;

impl Llama3 {
    /// As `LlamaModel.generate_extra_tensors` computes them with torch: the power in F64, rounded, everything after it in F32,
    /// a scalar over a tensor as the tensor's reciprocal times the scalar.
    pub(crate) fn freq_factors(&self, theta: f64, head_dim: u32) -> Vec<f32> {
        let low_wavelen = self.original_context / self.low_freq_factor;
        let high_wavelen = self.original_context / self.high_freq_factor;
        let (low, factor) = (self.low_freq_factor as f32, self.factor as f32);
        let factor_of = |i: u32| {
            let exponent = (2 * i) as f32 / head_dim as f32;
            let freq = 1.0 / (f64::from(theta as f32).powf(f64::from(exponent)) as f32);
            let wavelen = (1.0 / freq) * (2.0 * std::f64::consts::PI) as f32;
            if wavelen < high_wavelen as f32 {
                1.0
            } else if wavelen > low_wavelen as f32 {
                factor
            } else {
                let smooth = ((1.0 / wavelen) * self.original_context as f32 - low)
                    / (self.high_freq_factor - self.low_freq_factor) as f32;
                1.0 / ((1.0 - smooth) / factor + smooth)
            }
        };
        (0..head_dim / 2).map(factor_of).collect()
    }
}

/// `rope_type`, or `type` as it was called before.
fn rope_type(params: &Config) -> Result<Option<&str>, ArchError> {
    match (params.opt_str("rope_type")?, params.opt_str("type")?) {
        (Some(new), Some(old)) if new != old => {
            Err(ArchError::KeyConflict { first: params.path("rope_type"), second: params.path("type") })
        }
        (new, old) => Ok(new.or(old)),
    }
}
