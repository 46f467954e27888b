//! What a description means, one number at a time in F64: no tiles, no batches, no shared code.

use ggufsmith_arch::Decoder;
use ggufsmith_arch::decoder::{
    Activation, Attention, Experts, Ffn, GatedFfn, Layer, Linear, Matrix, Norm, NormKind, Over, QkNorm, Residual, RopeLayout,
    Shares, Vector,
};
use ggufsmith_core::DType;
use ggufsmith_infer::{Storage, Tensor, Tensors, WeightsError};
use std::collections::BTreeMap;

/// Tensors in memory, F32.
#[derive(Clone, Default)]
pub struct Memory(BTreeMap<String, (Vec<u64>, Vec<f32>)>);

impl Memory {
    /// Numbers for every tensor of a description: those of a name are always the same.
    pub fn of(decoder: &Decoder) -> Self {
        let numbers = |name: &str, shape: &[u64]| {
            let seed = name
                .bytes()
                .fold(14_695_981_039_346_656_037u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(1_099_511_628_211));
            let mut state = seed;
            let mut next = move || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1 << 24) as f32 - 0.5
            };
            (0..shape.iter().product::<u64>()).map(|_| next()).collect()
        };
        Memory(
            decoder.tensors().into_iter().map(|(name, shape)| (name.clone(), (shape.clone(), numbers(&name, &shape)))).collect(),
        )
    }

    fn at(&self, name: &str, index: u64) -> f64 {
        self.0[name].1[index as usize].into()
    }

    fn matrix(&self, matrix: &Matrix, row: usize, col: usize) -> f64 {
        let rows: Vec<u64> = matrix.rows.iter().cloned().flatten().collect();
        let row = rows.get(row).copied().unwrap_or(row as u64);
        let n = matrix.shape.len();
        let (rows, cols) = (matrix.shape[n - 2], matrix.shape[n - 1]);
        let (row, col) = if matrix.transposed { (col as u64, row) } else { (row, col as u64) };
        self.at(&matrix.tensor, (matrix.at * rows + row) * cols + col)
    }

    fn vector(&self, vector: &Vector) -> Vec<f64> {
        let all: Vec<f64> = vector.tensors.iter().flat_map(|name| self.0[name].1.iter().map(|x| f64::from(*x))).collect();
        if vector.ranges.is_empty() { all } else { vector.ranges.iter().cloned().flatten().map(|i| all[i as usize]).collect() }
    }

    fn product(&self, matrix: &Matrix, x: &[f64]) -> Vec<f64> {
        (0..matrix.n_rows() as usize)
            .map(|row| x.iter().enumerate().map(|(col, x)| x * self.matrix(matrix, row, col)).sum())
            .collect()
    }

    fn linear(&self, linear: &Linear, x: &[f64]) -> Vec<f64> {
        let product = self.product(&linear.weight, x);
        match &linear.bias {
            None => product,
            Some(bias) => product.iter().zip(self.vector(bias)).map(|(y, b)| y + b).collect(),
        }
    }

    fn norm(&self, norm: &Norm, x: &[f64], first: usize) -> Vec<f64> {
        let n = x.len() as f64;
        let mean = if norm.kind == NormKind::Layer { x.iter().sum::<f64>() / n } else { 0.0 };
        let square = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let numbers = |vector: &Option<Vector>, i: usize| {
            vector.as_ref().map(|vector| {
                let numbers = self.vector(vector);
                numbers[(first + i) % numbers.len()]
            })
        };
        let weight = |i| numbers(&norm.weight, i).map_or(1.0, |weight| weight + if norm.plus_one { 1.0 } else { 0.0 });
        let bias = |i| numbers(&norm.bias, i).unwrap_or(0.0);
        x.iter().enumerate().map(|(i, x)| (x - mean) / (square + f64::from(norm.eps)).sqrt() * weight(i) + bias(i)).collect()
    }

    fn normed(&self, norm: &Option<Norm>, x: &[f64]) -> Vec<f64> {
        norm.as_ref().map_or(x.to_vec(), |norm| self.norm(norm, x, 0))
    }
}

impl Tensors for Memory {
    fn tensor(&self, name: &str) -> Option<Tensor> {
        Some(Tensor { shape: self.0.get(name)?.0.clone(), storage: Storage::Plain(DType::F32) })
    }

    fn read(&self, name: &str, offset: u64, out: &mut [u8]) -> Result<(), WeightsError> {
        let values = &self.0[name].1[offset as usize / 4..];
        for (word, value) in out.chunks_exact_mut(4).zip(values) {
            word.copy_from_slice(&value.to_le_bytes());
        }
        Ok(())
    }
}

fn add(x: &mut [f64], y: &[f64], scale: f64) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += scale * y);
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let sum: f64 = x.iter().map(|x| x.exp()).sum();
    x.iter().map(|x| x.exp() / sum).collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn capped(x: f64, cap: Option<f32>) -> f64 {
    cap.map_or(x, |cap| f64::from(cap) * (x / f64::from(cap)).tanh())
}

/// `erf` by Taylor's series: arguments are small here.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

fn act(act: Activation, x: f64) -> f64 {
    match act {
        Activation::Silu => x * sigmoid(x),
        Activation::GeluTanh => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
        Activation::GeluErf => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
    }
}

/// Logits of every position, `[tokens, n_vocab]`, of a model that is set up for `n_ctx` positions.
pub fn logits(decoder: &Decoder, memory: &Memory, tokens: &[u32], n_ctx: usize) -> Vec<f64> {
    let n_embd = decoder.n_embd as usize;
    let mut stream: Vec<Vec<f64>> = Vec::new();
    for (position, token) in tokens.iter().enumerate() {
        let scale = f64::from(decoder.embd_scale.unwrap_or(1.0));
        let element = |col| {
            let learned = decoder.position_embd.as_ref().map_or(0.0, |matrix| memory.matrix(matrix, position, col));
            scale * memory.matrix(&decoder.token_embd, *token as usize, col) + learned
        };
        stream.push(memory.normed(&decoder.embd_norm, &(0..n_embd).map(element).collect::<Vec<_>>()));
    }
    for layer in &decoder.layers {
        run_layer(layer, memory, &mut stream, n_ctx);
    }
    let mut logits = Vec::new();
    for x in &stream {
        let raw = memory.linear(&decoder.output, &memory.norm(&decoder.output_norm, x, 0));
        logits.extend(raw.iter().map(|x| capped(x * f64::from(decoder.logit_scale.unwrap_or(1.0)), decoder.logit_softcap)));
    }
    logits
}

fn run_layer(layer: &Layer, memory: &Memory, stream: &mut [Vec<f64>], n_ctx: usize) {
    let scale = f64::from(layer.residual_scale.unwrap_or(1.0));
    let seen: Vec<Vec<f64>> = stream.iter().map(|x| memory.normed(&layer.attn_norm, x)).collect();
    let attended = attention(&layer.attn, memory, &seen, n_ctx);
    for ((x, attended), seen) in stream.iter_mut().zip(attended).zip(&seen) {
        let before = x.clone();
        add(x, &memory.normed(&layer.attn_post_norm, &attended), scale);
        let input = match layer.residual {
            Residual::Sequential => memory.normed(&layer.ffn_norm, x),
            Residual::Parallel => memory.normed(&layer.ffn_norm, &before),
            Residual::ParallelOneNorm => seen.clone(),
        };
        let wide = match &layer.ffn {
            Ffn::Gated(ffn) => gated(ffn, memory, &input),
            Ffn::Plain(ffn) => {
                let up: Vec<f64> = memory.linear(&ffn.up, &input).into_iter().map(|x| act(ffn.act, x)).collect();
                memory.linear(&ffn.down, &up)
            }
            Ffn::Experts(ffn) => experts(ffn, memory, &input),
        };
        add(x, &memory.normed(&layer.ffn_post_norm, &wide), scale);
    }
}

fn attention(a: &Attention, memory: &Memory, seen: &[Vec<f64>], n_ctx: usize) -> Vec<Vec<f64>> {
    let head_dim = a.head_dim as usize;
    let project = |linear: &Linear, norm: Option<&QkNorm>, rotated: bool| -> Vec<Vec<f64>> {
        let each = |(position, x): (usize, &Vec<f64>)| {
            let mut y = memory.linear(linear, x);
            if let Some(clip) = a.clip {
                y.iter_mut().for_each(|y| *y = y.clamp(-f64::from(clip), f64::from(clip)));
            }
            if let Some(QkNorm { norm, over }) = norm {
                let width = if *over == Over::Head { head_dim } else { y.len() };
                y = (0..y.len()).step_by(width).flat_map(|first| memory.norm(norm, &y[first..first + width], first)).collect();
            }
            if rotated {
                y.chunks_mut(head_dim).for_each(|head| rotate(a, memory, head, position, n_ctx));
            }
            y
        };
        seen.iter().enumerate().map(each).collect()
    };
    let (q, k, v) = (project(&a.q, a.q_norm.as_ref(), true), project(&a.k, a.k_norm.as_ref(), true), project(&a.v, None, false));
    let per_token = |t: usize| {
        let mut out = Vec::new();
        for head in 0..a.n_head as usize {
            let (at, kv_at) = (head * head_dim, head / (a.n_head / a.n_head_kv) as usize * head_dim);
            let visible: Vec<usize> = (0..=t).filter(|p| a.window.is_none_or(|window| t - p < window as usize)).collect();
            let score = |p: &usize| {
                let dot: f64 = (0..head_dim).map(|i| q[t][at + i] * k[*p][kv_at + i]).sum();
                capped(dot * f64::from(a.scale), a.softcap)
            };
            let shares = softmax(&visible.iter().map(score).collect::<Vec<_>>());
            out.extend(
                (0..head_dim).map(|i| shares.iter().zip(&visible).map(|(share, p)| share * v[*p][kv_at + i]).sum::<f64>()),
            );
        }
        memory.linear(&a.o, &out)
    };
    (0..seen.len()).map(per_token).collect()
}

fn rotate(a: &Attention, memory: &Memory, head: &mut [f64], position: usize, n_ctx: usize) {
    let Some(rope) = &a.rope else { return };
    let (mut freqs, mut factors) = (&rope.inv_freq, &rope.factors);
    if let Some(long) = rope.long.as_ref().filter(|long| n_ctx > long.beyond as usize) {
        (freqs, factors) = (&long.inv_freq, &long.factors);
    }
    let n = freqs.len();
    for (i, freq) in freqs.iter().enumerate() {
        let grown = rope.dynamic.filter(|dynamic| n_ctx > dynamic.beyond as usize).map(|dynamic| {
            let growth = 1.0 + dynamic.factor * (n_ctx as f64 / f64::from(dynamic.beyond) - 1.0);
            let base = dynamic.theta * (growth.ln() * n as f64 / (n as f64 - 1.0)).exp();
            1.0 / base.powf(i as f64 / n as f64)
        });
        let freq = grown.unwrap_or(*freq);
        let factor = factors.as_ref().map_or(1.0, |name| memory.at(name, i as u64));
        let (sin, cos) = (position as f64 * freq / factor).sin_cos();
        let (first, second) = match rope.layout {
            RopeLayout::Halves => (i, i + n),
            RopeLayout::Pairs => (2 * i, 2 * i + 1),
        };
        let (x, y) = (head[first], head[second]);
        head[first] = rope.magnitude * (x * cos - y * sin);
        head[second] = rope.magnitude * (x * sin + y * cos);
    }
}

fn gated(ffn: &GatedFfn, memory: &Memory, x: &[f64]) -> Vec<f64> {
    let (gate, up) = (memory.linear(&ffn.gate, x), memory.linear(&ffn.up, x));
    memory.linear(&ffn.down, &gate.iter().zip(up).map(|(gate, up)| act(ffn.act, *gate) * up).collect::<Vec<_>>())
}

fn experts(e: &Experts, memory: &Memory, x: &[f64]) -> Vec<f64> {
    let logits = memory.linear(&e.router, x);
    let mut used: Vec<usize> = (0..logits.len()).collect();
    used.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    used.truncate(e.used as usize);
    let all = softmax(&logits);
    let sum: f64 = match e.shares {
        Shares::OfAll => 1.0,
        Shares::OfUsed => used.iter().map(|expert| all[*expert]).sum(),
    };
    let mut out = vec![0.0; x.len()];
    for expert in used {
        let product = |matrix: &Matrix, x: &[f64]| memory.product(&matrix.of_expert(expert as u32), x);
        let (gate, up) = (product(&e.gate, x), product(&e.up, x));
        let wide: Vec<f64> = gate.iter().zip(up).map(|(gate, up)| act(e.act, *gate) * up).collect();
        add(&mut out, &product(&e.down, &wide), all[expert] / sum);
    }
    if let Some(shared) = &e.shared {
        let share = shared.gate.as_ref().map_or(1.0, |gate| sigmoid(memory.linear(gate, x)[0]));
        add(&mut out, &gated(&shared.ffn, memory, x), share);
    }
    out
}
