//! Every kind of layer that a description can name, against plain loops in F64.
#![allow(clippy::single_range_in_vec_init, reason = "a list of one range is what a fused tensor's part is")]
#![allow(missing_docs, reason = "tests")]

mod textbook;

use ggufsmith_arch::Decoder;
use ggufsmith_arch::decoder::{
    Activation, Attention, DynamicRope, Experts, Ffn, GatedFfn, Layer, Linear, LongRope, Matrix, Norm, NormKind, Over, PlainFfn,
    QkNorm, Residual, Rope, RopeLayout, SharedExpert, Shares, Vector, every,
};
use ggufsmith_infer::{Batch, Buffers, Gemm, InferError, Model, Session, Weights};
use textbook::Memory;

const EMBD: u32 = 24;
const HEADS: u32 = 4;
const KV: u32 = 2;
const HEAD: u32 = 8;
const FF: u32 = 40;
const VOCAB: u32 = 50;
/// Logits are a few units large; single precision errs by about 1e-5 of that.
const TOLERANCE: f64 = 2e-4;
const TOKENS: [u32; 23] = [3, 1, 4, 1, 5, 9, 2, 6, 5, 35, 8, 9, 7, 9, 3, 23, 8, 46, 26, 43, 38, 32, 49];

fn rope(theta: f64, pairs: u32) -> Rope {
    let inv_freq = (0..pairs).map(|i| theta.powf(-f64::from(i) / f64::from(pairs))).collect();
    Rope { layout: RopeLayout::Halves, inv_freq, factors: None, magnitude: 1.0, long: None, dynamic: None }
}

fn gated(name: &str, act: Activation) -> GatedFfn {
    GatedFfn {
        act,
        gate: Linear::new(format!("{name}.gate"), FF, EMBD),
        up: Linear::new(format!("{name}.up"), FF, EMBD),
        down: Linear::new(format!("{name}.down"), EMBD, FF),
    }
}

/// A Llama of two layers.
fn llama() -> Decoder {
    let layer = |number: u32| {
        let name = |part: &str| format!("{number}.{part}");
        let kv = KV * HEAD;
        let projections = [("q", HEADS * HEAD, EMBD), ("k", kv, EMBD), ("v", kv, EMBD), ("o", EMBD, HEADS * HEAD)]
            .map(|(part, rows, cols)| Linear::new(name(part), rows, cols));
        let attn = Attention::new(HEADS, KV, HEAD, projections, Some(rope(100.0, HEAD / 2)));
        let norm = |part| Norm::rms(name(part), EMBD, 1e-5);
        Layer::new(norm("attn_norm"), attn, norm("ffn_norm"), Ffn::Gated(gated(&name("ffn"), Activation::Silu)))
    };
    let head = Linear::new("head", VOCAB, EMBD);
    Decoder::new(Matrix::whole("embd", VOCAB, EMBD), 64, (0..2).map(layer).collect(), Norm::rms("norm", EMBD, 1e-5), head)
}

fn experts(layer: usize) -> Experts {
    let name = |part: &str| format!("{layer}.{part}");
    Experts {
        n_expert: 5,
        used: 2,
        router: Linear::new(name("router"), 5, EMBD),
        shares: Shares::OfUsed,
        act: Activation::Silu,
        gate: Matrix::whole(name("gate_exps"), FF, EMBD).stacked(5),
        up: Matrix::whole(name("up_exps"), FF, EMBD).stacked(5),
        down: Matrix::whole(name("down_exps"), EMBD, FF).stacked(5),
        shared: None,
    }
}

fn qk_norm(name: &str, norm: fn(&str, u32) -> Norm, len: u32, over: Over) -> Option<QkNorm> {
    Some(QkNorm { norm: norm(name, len), over })
}

fn rms(name: &str, len: u32) -> Norm {
    Norm::rms(name, len, 1e-5)
}

fn own_norms(name: &str, len: u32) -> Norm {
    let names = (0..len / HEAD).map(|head| format!("{name}.{head}"));
    Norm { weight: Some(Vector::joined(names, HEAD)), ..Norm::bare(NormKind::Layer, 1e-5) }
}

type Change = fn(&mut Decoder);

fn layers(decoder: &mut Decoder, mut change: impl FnMut(usize, &mut Layer)) {
    decoder.layers.iter_mut().enumerate().for_each(|(number, layer)| change(number, layer));
}

fn ropes(decoder: &mut Decoder, mut change: impl FnMut(&mut Rope)) {
    decoder.layers.iter_mut().filter_map(|layer| layer.attn.rope.as_mut()).for_each(&mut change);
}

fn mixture(decoder: &mut Decoder, change: impl Fn(&mut Experts)) {
    layers(decoder, |number, layer| {
        let mut experts = experts(number);
        change(&mut experts);
        layer.ffn = Ffn::Experts(Box::new(experts));
    });
}

/// What one family or another has that a Llama has not.
#[rustfmt::skip]
const FEATURES: &[(&str, Change)] = &[
    ("embedding scale", |d| d.embd_scale = Some(4.9)),
    ("learned positions", |d| d.position_embd = Some(Matrix::whole("positions", 64, EMBD))),
    ("embedding norm", |d| d.embd_norm = Some(Norm::layer("embd_norm", Some("embd_norm.b".into()), EMBD, 1e-5))),
    ("logit scale", |d| d.logit_scale = Some(0.25)),
    ("logit cap", |d| d.logit_softcap = Some(2.0)),
    ("head bias", |d| d.output = Linear::new("head", VOCAB, EMBD).with_bias(Some("head.b".into()))),
    ("tied head", |d| d.output = Linear::new("embd", VOCAB, EMBD)),
    ("layer norm", |d| layers(d, |n, l| l.attn_norm = Some(Norm::layer(format!("{n}.attn_norm"), Some(format!("{n}.b")), EMBD, 1e-5)))),
    ("layer norm without bias", |d| d.output_norm = Norm::layer("norm", None, EMBD, 1e-5)),
    ("bare layer norm", |d| layers(d, |_, l| l.ffn_norm = Some(Norm::bare(NormKind::Layer, 1e-5)))),
    ("one more than the weights", |d| d.output_norm.plus_one = true),
    ("epsilon", |d| d.output_norm.eps = 0.5),
    ("norms behind", |d| layers(d, |n, l| {
        l.attn_post_norm = Some(rms(&format!("{n}.attn_post"), EMBD));
        l.ffn_post_norm = Some(rms(&format!("{n}.ffn_post"), EMBD));
    })),
    ("norms behind only", |d| layers(d, |n, l| {
        (l.attn_norm, l.ffn_norm) = (None, None);
        l.attn_post_norm = Some(rms(&format!("{n}.attn_post"), EMBD));
        l.ffn_post_norm = Some(rms(&format!("{n}.ffn_post"), EMBD));
    })),
    ("parallel", |d| layers(d, |_, l| l.residual = Residual::Parallel)),
    ("parallel with one norm", |d| layers(d, |_, l| (l.residual, l.ffn_norm) = (Residual::ParallelOneNorm, None))),
    ("residual scale", |d| layers(d, |_, l| l.residual_scale = Some(0.22))),
    ("biases", |d| layers(d, |n, l| {
        let biased = |linear: &Linear, part| linear.clone().with_bias(Some(format!("{n}.{part}.b")));
        (l.attn.q, l.attn.o) = (biased(&l.attn.q, "q"), biased(&l.attn.o, "o"));
    })),
    ("clip", |d| layers(d, |_, l| l.attn.clip = Some(0.3))),
    ("norms of heads", |d| layers(d, |n, l| {
        l.attn.q_norm = qk_norm(&format!("{n}.q_norm"), rms, HEAD, Over::Head);
        l.attn.k_norm = qk_norm(&format!("{n}.k_norm"), rms, HEAD, Over::Head);
    })),
    ("norms of heads, each its own", |d| layers(d, |n, l| {
        l.attn.q_norm = qk_norm(&format!("{n}.q_norm"), own_norms, HEADS * HEAD, Over::Head);
        l.attn.k_norm = qk_norm(&format!("{n}.k_norm"), own_norms, KV * HEAD, Over::Head);
    })),
    ("norms of projections", |d| layers(d, |n, l| {
        l.attn.q_norm = qk_norm(&format!("{n}.q_norm"), rms, HEADS * HEAD, Over::Projection);
        l.attn.k_norm = qk_norm(&format!("{n}.k_norm"), rms, KV * HEAD, Over::Projection);
    })),
    ("norm and clip", |d| layers(d, |n, l| {
        l.attn.clip = Some(0.3);
        l.attn.q_norm = qk_norm(&format!("{n}.q_norm"), rms, HEAD, Over::Head);
    })),
    ("attention scale", |d| layers(d, |_, l| l.attn.scale = 1.5)),
    ("attention cap", |d| layers(d, |_, l| l.attn.softcap = Some(0.1))),
    ("windows in some layers", |d| d.layers[0].attn.window = Some(5)),
    ("a layer without positions", |d| d.layers[1].attn.rope = None),
    ("part of a head rotates", |d| layers(d, |_, l| l.attn.rope = Some(rope(100.0, 1)))),
    ("part of a head, pairs", |d| layers(d, |_, l| l.attn.rope = Some(Rope { layout: RopeLayout::Pairs, ..rope(100.0, 3) }))),
    ("pairs", |d| ropes(d, |rope| rope.layout = RopeLayout::Pairs)),
    ("another base in some layers", |d| d.layers[0].attn.rope = Some(rope(7.0, HEAD / 2))),
    ("frequency factors", |d| ropes(d, |rope| rope.factors = Some("factors".into()))),
    ("long texts", |d| ropes(d, |rope| rope.long = Some(LongRope { beyond: 20, inv_freq: vec![0.3; 4], factors: Some("long".into()) }))),
    ("not so long texts", |d| ropes(d, |rope| {
        rope.magnitude = 1.3;
        rope.long = Some(LongRope { beyond: 64, inv_freq: vec![0.3; 4], factors: None });
    })),
    ("a base that grows", |d| ropes(d, |rope| rope.dynamic = Some(DynamicRope { beyond: 20, theta: 100.0, factor: 9.0 }))),
    ("a base that would grow", |d| ropes(d, |rope| {
        rope.magnitude = 1.3;
        rope.dynamic = Some(DynamicRope { beyond: 64, theta: 100.0, factor: 9.0 });
    })),
    ("gated gelu", |d| layers(d, |n, l| l.ffn = Ffn::Gated(gated(&format!("{n}.ffn"), Activation::GeluTanh)))),
    ("plain gelu", |d| layers(d, |n, l| l.ffn = Ffn::Plain(PlainFfn {
        act: Activation::GeluErf,
        up: Linear::new(format!("{n}.ffn.up"), FF, EMBD).with_bias(Some(format!("{n}.up.b"))),
        down: Linear::new(format!("{n}.ffn.down"), EMBD, FF).with_bias(Some(format!("{n}.down.b"))),
    }))),
    ("fused projections", |d| layers(d, |n, l| {
        let rows = (HEADS + 2 * KV) * HEAD;
        let part = |from: u32, len: u32| Linear {
            weight: Matrix::whole(format!("{n}.qkv"), rows, EMBD).rows(every(1, 0, from, len)),
            bias: Some(Vector::whole(format!("{n}.qkv.b"), rows).ranges(every(1, 0, from, len))),
        };
        let kv = KV * HEAD;
        (l.attn.q, l.attn.k, l.attn.v) = (part(0, HEADS * HEAD), part(HEADS * HEAD, kv), part(HEADS * HEAD + kv, kv));
    })),
    ("projections fused by groups, transposed", |d| layers(d, |n, l| {
        let (group, rows) = (HEADS / KV, (HEADS + 2 * KV) * HEAD);
        let part = |from: u32, len: u32| {
            let ranges: Vec<_> = every(KV, (group + 2) * HEAD, from * HEAD, len * HEAD).collect();
            let bias = Some(Vector::whole(format!("{n}.qkv.b"), rows).ranges(ranges.clone()));
            Linear { weight: Matrix::transposed(format!("{n}.qkv"), rows, EMBD).rows(ranges), bias }
        };
        (l.attn.q, l.attn.k, l.attn.v) = (part(0, group), part(group, 1), part(group + 1, 1));
    })),
    ("experts", |d| mixture(d, |_| ())),
    ("experts, shares of all", |d| mixture(d, |e| e.shares = Shares::OfAll)),
    ("all experts", |d| mixture(d, |e| e.used = 5)),
    ("experts, one tensor each", |d| mixture(d, |e| {
        for matrix in [&mut e.gate, &mut e.up, &mut e.down] {
            matrix.tensor.push_str(".{}");
            matrix.shape.remove(0);
        }
    })),
    ("experts, gate and up in one tensor, transposed", |d| mixture(d, |e| {
        let part = |from: u32| Matrix::transposed("gate_up", 2 * FF, EMBD).stacked(5).rows(every(1, 0, from, FF));
        (e.gate, e.up) = (part(0), part(FF));
        e.down = Matrix::transposed("down", EMBD, FF).stacked(5);
    })),
    ("experts and a shared one", |d| mixture(d, |e| e.shared = Some(SharedExpert { ffn: gated("shared", e.act), gate: None }))),
    ("experts and a shared one behind a gate", |d| mixture(d, |e| {
        e.shared = Some(SharedExpert { ffn: gated("shared", e.act), gate: Some(Linear::new("shared_gate", 1, EMBD)) });
    })),
];

fn model(decoder: &Decoder) -> Model {
    Model::new(decoder.clone(), Weights::new(Box::new(Memory::of(decoder))), Box::new(Gemm), TOKENS.len()).unwrap()
}

/// Logits of every position in one pass.
fn run(decoder: &Decoder) -> Vec<f32> {
    let model = model(decoder);
    let batch = Batch::of_lengths([TOKENS.len()]);
    let mut buffers = Buffers::default();
    let mut hidden = model.embed(&batch, &TOKENS).unwrap();
    for layer in 0..decoder.layers.len() {
        model.layer(layer, &batch, &mut hidden, None, &mut buffers).unwrap();
    }
    let rows = model.output_rows(&hidden, &(0..TOKENS.len()).collect::<Vec<_>>()).unwrap();
    // By tiles of the vocabulary, as verify asks for them.
    let (n, mut logits) = (VOCAB as usize, vec![0.0; TOKENS.len() * VOCAB as usize]);
    for (from, to) in [(0, 17), (17, n)] {
        let mut tile = Vec::new();
        model.logits(&rows, from..to, &mut tile, &mut buffers).unwrap();
        for (row, tile) in logits.chunks_mut(n).zip(tile.chunks(to - from)) {
            row[from..to].copy_from_slice(tile);
        }
    }
    logits
}

fn textbook(decoder: &Decoder) -> Vec<f64> {
    textbook::logits(decoder, &Memory::of(decoder), &TOKENS, TOKENS.len())
}

fn worst(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max)
}

fn with(change: &Change) -> Decoder {
    let mut decoder = llama();
    change(&mut decoder);
    decoder
}

#[test]
fn every_feature_is_what_the_textbook_says() {
    assert!(worst(&run(&llama()), &textbook(&llama())) < TOLERANCE);
    for (name, change) in FEATURES {
        let decoder = with(change);
        let worst = worst(&run(&decoder), &textbook(&decoder));
        assert!(worst < TOLERANCE, "{name}: {worst}");
    }
}

/// A feature that is forgotten leaves the tolerance, so that the test above would see it.
#[test]
fn every_feature_matters() {
    let plain = textbook(&llama());
    for (name, change) in FEATURES {
        let worst = worst(&run(&with(change)), &plain);
        assert!(worst > 10.0 * TOLERANCE, "{name}: {worst}");
    }
    // Those that differ from another feature by one setting.
    for (a, b) in [
        ("norm and clip", "norms of heads"),
        ("experts, shares of all", "experts"),
        ("all experts", "experts"),
        ("experts and a shared one behind a gate", "experts and a shared one"),
        ("part of a head rotates", "pairs"),
        ("parallel with one norm", "parallel"),
        ("gated gelu", "plain gelu"),
    ] {
        let of = |name: &str| with(&FEATURES.iter().find(|(found, _)| *found == name).unwrap().1);
        let worst = worst(&run(&of(a)), &textbook(&of(b)));
        assert!(worst > 10.0 * TOLERANCE, "{a}, {b}: {worst}");
    }
}

#[test]
fn token_by_token_gives_the_same() {
    for (name, change) in FEATURES {
        let decoder = with(change);
        let (model, expected) = (model(&decoder), textbook(&decoder));
        let mut session = Session::new(&model, 1);
        let mut fed = 0;
        // A prompt, then one at a time.
        for run in [11, 1, 1, 3, 1, 1, 1, 1, 1, 1, 1] {
            let logits = session.feed(&[(0, &TOKENS[fed..fed + run])]).unwrap();
            fed += run;
            let expected = &expected[(fed - 1) * VOCAB as usize..fed * VOCAB as usize];
            let worst = worst(&logits[0], expected);
            assert!(worst < TOLERANCE, "{name}, {fed} tokens: {worst}");
        }
        assert_eq!(fed, TOKENS.len());
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    for (name, change) in FEATURES {
        let decoder = with(change);
        let bits = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(&decoder).into_iter().map(f32::to_bits).collect::<Vec<_>>())
        };
        assert_eq!(bits(1), bits(3), "{name}");
    }
}

#[test]
fn sizes_that_contradict_each_other_are_refused() {
    let changes: &[(&str, Change)] = &[
        ("share", |d| d.layers[1].attn.n_head_kv = 3),
        ("the query projection", |d| d.layers[1].attn.head_dim = 16),
        ("the query projection", |d| d.layers[1].attn.q.weight.rows = vec![0..32, 31..33]),
        ("the key projection", |d| d.layers[1].attn.k.weight.shape = vec![16, 25]),
        ("of a head", |d| d.layers[1].attn.rope = Some(rope(100.0, 5))),
        ("no positions", |d| d.layers[1].attn.window = Some(0)),
        ("the norm of queries", |d| d.layers[1].attn.q_norm = qk_norm("n", rms, 9, Over::Head)),
        ("the bias of", |d| d.layers[1].attn.v.bias = Some(Vector::whole("b", 40).ranges(every(1, 0, 30, 16)))),
        ("the norm of attention", |d| d.layers[1].attn_norm = Some(rms("n", 23))),
        ("down", |d| {
            d.layers[1].ffn =
                Ffn::Plain(PlainFfn { act: Activation::Silu, up: Linear::new("u", 9, EMBD), down: Linear::new("d", EMBD, 8) })
        }),
        ("are used", |d| mixture(d, |e| e.used = 6)),
        ("are used", |d| mixture(d, |e| (e.n_expert, e.used) = (u32::MAX, 1))),
        ("stacks 4", |d| mixture(d, |e| e.up.shape[0] = 4)),
    ];
    for (what, change) in changes {
        let decoder = with(change);
        let weights = Weights::new(Box::new(Memory::default()));
        let error = Model::new(decoder, weights, Box::new(Gemm), 4).err().unwrap();
        assert!(matches!(error, InferError::Sizes { .. }) && error.to_string().contains(what), "{what}: {error}");
    }
}

#[test]
fn learned_positions_end_somewhere() {
    let decoder = Decoder { position_embd: Some(Matrix::whole("positions", 16, EMBD)), ..llama() };
    let weights = || Weights::new(Box::new(Memory::of(&decoder)));
    let error = Model::new(decoder.clone(), weights(), Box::new(Gemm), 17).err().unwrap();
    assert!(matches!(error, InferError::Positions { wanted: 17, learned: 16 }), "{error}");
    let model = Model::new(decoder.clone(), weights(), Box::new(Gemm), 16).unwrap();
    let mut session = Session::new(&model, 1);
    session.feed(&[(0, &TOKENS[..16])]).unwrap();
    assert!(matches!(session.feed(&[(0, &[1])]), Err(InferError::Context { wanted: 17, n_ctx: 16 })));
}
