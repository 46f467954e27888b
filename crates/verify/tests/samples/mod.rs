//! Made-up reports with plausible figures, for tests of what shows them. Several test targets include this file.
#![allow(dead_code, missing_docs)]

use ggufsmith_verify::report::{
    Check, Engine, Figures, Gate, HashedFile, Histogram, Latency, Memory, Report, SCHEMA, Sentences, Source, Speed, Status,
    TensorFigures, TensorVerdict, TypeBytes, WindowFigures, layer_and_kind,
};

/// What a made-up file is like.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// Name of its file type.
    pub file_type: &'a str,
    /// Bits per weight.
    pub bits: f64,
    /// Relative RMSE of its matrices, about; 0 for a lossless file.
    pub error: f64,
    /// Mean KL divergence in nats.
    pub kld: f64,
    /// Number of layers.
    pub layers: u32,
}

/// The types of a real-looking family of files, most exact first.
pub const SAMPLES: [Sample<'_>; 12] = [
    sample("BF16", 16.0, 0.0, 0.0),
    sample("Q8_0", 8.5, 0.0052, 0.000_41),
    sample("Q6_K", 6.5625, 0.0171, 0.0023),
    sample("Q5_1", 6.0, 0.031, 0.0071),
    sample("Q5_K_M", 5.7, 0.034, 0.0079),
    sample("Q5_0", 5.5, 0.039, 0.0112),
    sample("Q4_1", 5.0, 0.064, 0.0312),
    sample("Q4_K_M", 4.9, 0.066, 0.0298),
    sample("Q4_0", 4.5, 0.078, 0.0543),
    sample("IQ4_NL", 4.5, 0.071, 0.0421),
    sample("Q3_K_M", 3.9, 0.135, 0.161),
    sample("Q2_K", 3.0, 0.27, 0.74),
];

const fn sample(file_type: &'static str, bits: f64, error: f64, kld: f64) -> Sample<'static> {
    Sample { file_type, bits, error, kld, layers: 30 }
}

/// A faithful file.
pub fn report(sample: Sample<'_>) -> Report {
    let tensors = tensors(sample);
    let parameters = tensors.iter().map(|tensor| tensor.elems).sum();
    let weights: u64 = tensors.iter().map(|tensor| tensor.bytes).sum();
    let name = format!("SmolLM2-135M-Instruct-{}.gguf", sample.file_type);
    let bytes = weights + 1_790_000;
    let file = HashedFile { name: name.clone(), bytes, sha256: hash(&name) };
    let check = |name: &str, summary: &str| Check {
        name: name.to_owned(),
        status: Status::Passed,
        summary: summary.to_owned(),
        problems: Vec::new(),
    };
    Report {
        schema: SCHEMA.to_owned(),
        tool: "ggufsmith 0.1.0".to_owned(),
        command: ["verify", &name, "--against", "SmolLM2-135M-Instruct", "--text", "eval.txt"].map(str::to_owned).to_vec(),
        file: name,
        sha256: file.sha256.clone(),
        files: vec![file],
        bytes,
        architecture: "llama".to_owned(),
        file_type: sample.file_type.to_owned(),
        parameters,
        bits_per_weight: 8.0 * weights as f64 / parameters as f64,
        source: source(parameters),
        faithful: true,
        verdict: "Faithful: all 4 checks passed.".to_owned(),
        checks: vec![
            check("structure", "32 keys and 272 tensors, as llama.cpp reads them"),
            check("tensors", &format!("{0} of {0} tensors are exact", tensors.len())),
            check("tokenizer", "4,096 texts become the same tokens"),
            check("forward", "finite, and close in every layer"),
        ],
        gate: Gate::default(),
        figures: Some(figures(sample)),
        sentences: None,
        engine: None,
        memory: Memory {
            source: vec![TypeBytes { format: "BF16".to_owned(), tensors: tensors.len() as u64, bytes: 2 * parameters }],
            file: types(&tensors),
        },
        latency: None,
        tensors,
    }
}

/// With everything that is optional.
pub fn full(sample: Sample<'_>) -> Report {
    let mut report = report(sample);
    let speed = |prompt: f64, generated: f64| Speed {
        prompt_tokens_per_second: prompt,
        generated_tokens_per_second: generated,
        ms_per_token: 1000.0 / generated,
    };
    report.latency = Some(Latency { threads: 2, source: speed(212.4, 11.3), file: speed(187.9, 14.8) });
    report.engine = Some(Engine {
        version: "b6500".to_owned(),
        perplexity: 16.41,
        kld_mean: sample.kld * 1.04,
        kld_max: 4.1,
        same_top1: 0.921,
    });
    report.sentences = Some(Sentences {
        text: HashedFile { name: "sentences.txt".to_owned(), bytes: 4_120, sha256: hash("sentences.txt") },
        sentences: 40,
        tokens: 1_012,
        perplexity_source: 41.2,
        perplexity: 42.9,
        mean_perplexity_source: 88.1,
        mean_perplexity: 93.0,
        median_perplexity_source: 39.0,
        median_perplexity: 40.4,
    });
    report
}

/// Only structure and tensors were looked at.
pub fn without_forward(sample: Sample<'_>) -> Report {
    let mut report = report(sample);
    report.figures = None;
    report.faithful = false;
    report.verdict = "Passed as far as it was checked: forward did not run.".to_owned();
    report.checks[3].status = Status::Skipped;
    report.checks[3].summary = "switched off with --no-forward".to_owned();
    report
}

/// A damaged file whose names try to do harm, and whose figures are not finite.
pub fn hostile(sample: Sample<'_>) -> Report {
    let mut report = report(sample);
    let evil = "\"><script>console.error('reached')</script><img src=x onerror=console.error(1)>|`@everyone`\u{1b}[31m\u{202e}";
    report.file = format!("{evil}{}.gguf", "very-long-name-".repeat(12));
    report.source.name = format!("org/{evil}");
    report.file_type = "<b>Q4_0</b>".to_owned();
    report.faithful = false;
    report.verdict = format!("Not faithful: tensors failed for {evil}.");
    report.checks[1].status = Status::Failed;
    report.checks[1].summary = "270 of 272 tensors are exact".to_owned();
    report.checks[1].problems = (0..60).map(|n| format!("tensor {n} {evil}: relative RMSE 1.4, ours has 0.078")).collect();
    report.gate.max_kld = Some(0.1);
    report.gate.failures = vec![format!("mean KL divergence is not finite {evil}")];
    for (at, tensor) in report.tensors.iter_mut().enumerate().filter(|(at, _)| at % 37 == 5) {
        (tensor.verdict, tensor.relative_rmse) = (TensorVerdict::Wrong, if at % 2 == 0 { f64::NAN } else { 1.4 });
        (tensor.kind, tensor.name) = (evil.to_owned(), format!("{evil}.{at}"));
    }
    if let Some(figures) = &mut report.figures {
        (figures.perplexity, figures.perplexity_error) = (f64::INFINITY, f64::NAN);
        (figures.perplexity_ratio, figures.kld_mean) = (f64::INFINITY, f64::NAN);
        (figures.same_top1, figures.kld_histogram.width) = (f64::NAN, f64::NAN);
        figures.hidden_error[3] = f64::NAN;
        figures.text.name = evil.to_owned();
    }
    report
}

fn source(parameters: u64) -> Source {
    let file = |name: &str, bytes| HashedFile { name: name.to_owned(), bytes, sha256: hash(name) };
    Source {
        name: "HuggingFaceTB/SmolLM2-135M-Instruct".to_owned(),
        revision: Some("12fd25f77366fa6b3b4b768ec3050bf629380bac".to_owned()),
        files: vec![
            file("config.json", 861),
            file("model.safetensors", 2 * parameters + 31_000),
            file("tokenizer.json", 2_104_556),
        ],
        bytes: 2 * parameters,
    }
}

/// Something that looks like a SHA-256.
fn hash(name: &str) -> String {
    let mut state = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    (0..4).map(|_| format!("{:016x}", next(&mut state))).collect()
}

fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let x = *state ^ (*state >> 31);
    x.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (x >> 29)
}

/// In `[0, 1)`.
fn uniform(state: &mut u64) -> f64 {
    (next(state) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Name, elements, and how its error compares with the others'.
const BLOCK: [(&str, u64, f64); 9] = [
    ("attn_norm", 576, 0.0),
    ("attn_q", 576 * 576, 1.05),
    ("attn_k", 576 * 192, 1.2),
    ("attn_v", 576 * 192, 0.95),
    ("attn_output", 576 * 576, 0.98),
    ("ffn_norm", 576, 0.0),
    ("ffn_gate", 576 * 1536, 1.0),
    ("ffn_up", 576 * 1536, 0.97),
    ("ffn_down", 576 * 1536, 1.02),
];

fn tensors(sample: Sample<'_>) -> Vec<TensorFigures> {
    let mut state = sample.file_type.bytes().map(u64::from).sum::<u64>() + 7;
    let mut tensors = vec![tensor("token_embd.weight", 49_152 * 576, 0.4, sample, 0.0)];
    for layer in 0..sample.layers {
        for (kind, elems, weight) in BLOCK {
            let depth = f64::from(layer) / f64::from(sample.layers.max(2) - 1);
            let outlier = if kind == "ffn_down" && layer == 1 { 2.3 } else { 1.0 };
            let factor = weight * outlier * (0.9 + 0.25 * (depth - 0.45).powi(2)) * (0.93 + 0.14 * uniform(&mut state));
            tensors.push(tensor(&format!("blk.{layer}.{kind}.weight"), elems, factor, sample, uniform(&mut state)));
        }
    }
    tensors.push(tensor("output_norm.weight", 576, 0.0, sample, 0.0));
    tensors
}

fn tensor(name: &str, elems: u64, factor: f64, sample: Sample<'_>, noise: f64) -> TensorFigures {
    let (layer, kind) = layer_and_kind(name);
    let norm = factor == 0.0;
    let relative_rmse = sample.error * factor;
    let lossless = relative_rmse == 0.0;
    TensorFigures {
        name: name.to_owned(),
        layer,
        kind: kind.to_owned(),
        format: if norm { "F32" } else { sample.file_type }.to_owned(),
        elems,
        bytes: if norm { 4 * elems } else { (elems as f64 * sample.bits / 8.0) as u64 },
        verdict: if lossless { TensorVerdict::Lossless } else { TensorVerdict::Exact },
        via: None,
        max_error: relative_rmse * (0.3 + 0.1 * noise),
        rmse: relative_rmse * 0.11,
        relative_rmse,
        cosine: 1.0 - relative_rmse * relative_rmse / 2.0,
        saturated: if lossless { 0.0 } else { 0.031 },
        non_finite: 0,
    }
}

fn types(tensors: &[TensorFigures]) -> Vec<TypeBytes> {
    let mut types: Vec<TypeBytes> = Vec::new();
    for tensor in tensors {
        match types.iter_mut().find(|known| known.format == tensor.format) {
            Some(known) => (known.tensors, known.bytes) = (known.tensors + 1, known.bytes + tensor.bytes),
            None => types.push(TypeBytes { format: tensor.format.clone(), tensors: 1, bytes: tensor.bytes }),
        }
    }
    types
}

fn figures(sample: Sample<'_>) -> Figures {
    let (source, kld) = (15.92, sample.kld);
    let ratio = (1.1 * kld).exp();
    let top1 = 1.0 - (0.34 * kld.sqrt()).min(0.9);
    let from = -10.0;
    let counts = (0..44).map(|bin| {
        if kld == 0.0 {
            return if bin == 0 { 5_100 } else { 0 };
        }
        let z = (from + 0.25 * (f64::from(bin) + 0.5) - (kld / 3.0).log10()) / 0.75;
        (5_100.0 * 0.133 * (-z * z / 2.0).exp()) as u64
    });
    let mut state = 99;
    let per_window = (0..20).map(|_| {
        let window = 9.0 + 14.0 * uniform(&mut state);
        WindowFigures { perplexity_source: window, perplexity: window * ratio, kld_mean: kld, same_top1: top1 }
    });
    Figures {
        text: HashedFile { name: "eval.txt".to_owned(), bytes: 51_233, sha256: hash("eval.txt") },
        n_ctx: 512,
        windows: 20,
        tokens: 5_100,
        perplexity_source: source,
        perplexity_source_error: 0.312,
        perplexity: source * ratio,
        perplexity_error: 0.312 * ratio,
        perplexity_ratio: ratio,
        perplexity_ratio_error: 0.04 * kld.sqrt() * ratio,
        nll_correlation: 1.0 - kld / 10.0,
        kld_mean: kld,
        kld_mean_error: kld * 0.035,
        kld_max: kld * 61.0,
        kld_p999: kld * 22.0,
        kld_p99: kld * 9.0,
        kld_p95: kld * 3.9,
        kld_median: kld * 0.36,
        kld_histogram: Histogram { from, width: 0.25, counts: counts.collect() },
        delta_p_mean: -0.02 * kld.sqrt(),
        delta_p_mean_error: 0.0011,
        delta_p_rms: 0.2 * kld.sqrt(),
        delta_p_rms_error: 0.0021,
        same_top1: top1,
        same_top1_error: 0.03 * (1.0 - top1).sqrt(),
        per_window: per_window.collect(),
        hidden_error: (0..sample.layers).map(|layer| sample.error * 0.6 * (1.0 + f64::from(layer) / 9.0).sqrt()).collect(),
    }
}
