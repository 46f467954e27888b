//! An expression, then its inverse: every source tensor comes back bit for bit.
#![allow(missing_docs, reason = "tests")]

use ggufsmith_core::inverse::{InverseError, Piece, invert, join};
use ggufsmith_core::{DType, SourceError, TensorExpr, TensorInfo, TensorSource};
use proptest::prelude::*;
use std::path::PathBuf;

/// Tensors in memory.
#[derive(Debug, Clone, Default)]
struct Memory(Vec<(TensorInfo, Vec<u8>)>);

impl TensorSource for Memory {
    fn tensors(&self) -> &[TensorInfo] {
        &[]
    }
    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.0.iter().map(|(info, _)| info).find(|info| info.name == name)
    }
    fn read(&self, name: &str, offset: u64, out: &mut [u8]) -> Result<(), SourceError> {
        let (_, bytes) = self.0.iter().find(|(info, _)| info.name == name).unwrap();
        out.copy_from_slice(&bytes[offset as usize..offset as usize + out.len()]);
        Ok(())
    }
}

impl Memory {
    /// A tensor whose elements all differ, as far as its words allow.
    fn add(&mut self, dtype: DType, shape: &[u64]) -> TensorExpr {
        let name = format!("t{}", self.0.len());
        let info = TensorInfo { name, dtype, shape: shape.to_vec(), file: PathBuf::new(), offset: 0 };
        let first = self.0.len() as u32 * 10_007;
        let bytes = (0..info.elems() as u32).flat_map(|i| match dtype {
            DType::F32 => ((first + i) as f32).to_le_bytes().to_vec(),
            _ => ((first + i) as u16).to_le_bytes().to_vec(),
        });
        let bytes = bytes.collect();
        self.0.push((info.clone(), bytes));
        TensorExpr::Read(info)
    }
}

fn evaluate(expr: &TensorExpr, source: &Memory) -> Vec<u8> {
    let mut out = Vec::new();
    expr.append(source, 0..expr.elems(), &mut out).unwrap();
    out
}

/// What `expr` evaluates to, as a file with one tensor.
fn output(expr: &TensorExpr, source: &Memory) -> (TensorInfo, Memory) {
    let dtype = if expr.words().bytes() == 4 { DType::F32 } else { DType::BF16 };
    let info = TensorInfo { name: "out".into(), dtype, shape: expr.shape(), file: PathBuf::new(), offset: 0 };
    (info.clone(), Memory(vec![(info, evaluate(expr, source))]))
}

/// Every source tensor of `expr`, rebuilt from its output; `Err` with the first that differs.
fn round_trip(expr: &TensorExpr, source: &Memory, damage: Option<usize>) -> Result<(), String> {
    let (info, mut file) = output(expr, source);
    if let Some(at) = damage {
        file.0[0].1[at] ^= 1;
    }
    let pieces = invert(expr, &info).map_err(|e| e.to_string())?;
    for (info, bytes) in &source.0 {
        let own: Vec<Piece> = pieces.iter().filter(|piece| piece.source == *info).cloned().collect();
        let back = join(info, own).map_err(|e| e.to_string())?;
        if back.shape() != info.shape {
            return Err(format!("{} has the shape {:?}", info.name, back.shape()));
        }
        if evaluate(&back, &file) != *bytes {
            return Err(format!("{} differs", info.name));
        }
    }
    Ok(())
}

/// How a leaf of `[rows, cols]` is wrapped: each step keeps or changes the shape.
fn wrap(expr: TensorExpr, step: u8, order: &[usize]) -> TensorExpr {
    let shape = expr.shape();
    match step % 4 {
        // What is transposed is read in whole rows, which neither another transposition nor a flat tensor does.
        0 if shape.len() == 2 && expr.min_rows() == 1 => TensorExpr::Transpose(Box::new(expr)),
        1 => {
            // Split the outermost dimension where 2 or 3 divides it.
            let factor = [3, 2].into_iter().find(|f| shape[0].is_multiple_of(*f)).unwrap_or(1);
            let dims = vec![factor, shape[0] / factor, 1];
            TensorExpr::PermuteRows { input: Box::new(expr), dims, axes: order.to_vec() }
        }
        2 if shape.len() == 2 && expr.min_rows() == 1 => {
            let flat = vec![shape[0] * shape[1]];
            TensorExpr::Reshape(Box::new(expr), flat)
        }
        _ => expr,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn identity(
        rows in 1u64..13, cols in 1u64..6, parts in 1usize..4, half in any::<bool>(), stack in any::<bool>(),
        inner in prop::collection::vec(0u8..4, 0..4), outside in prop::collection::vec(0u8..4, 0..3),
        order in Just(vec![0usize, 1, 2]).prop_shuffle(),
    ) {
        let mut source = Memory::default();
        let dtype = if half { DType::BF16 } else { DType::F32 };
        let mut leaves = Vec::new();
        for _ in 0..parts {
            let leaf = source.add(dtype, &[rows, cols]);
            leaves.push(inner.iter().fold(leaf, |expr, &step| wrap(expr, step, &order)));
        }
        let whole = if parts == 1 {
            leaves.remove(0)
        } else if stack {
            TensorExpr::Stack(leaves)
        } else {
            TensorExpr::Concat(leaves)
        };
        let expr = outside.iter().fold(whole, |expr, &step| wrap(expr, step, &order));
        prop_assert_eq!(round_trip(&expr, &source, None), Ok(()));
        // The comparison itself: any flipped bit of the output is a difference in some source.
        let last = evaluate(&expr, &source).len() - 1;
        prop_assert!(round_trip(&expr, &source, Some(last)).is_err());
    }

    /// A fused tensor that becomes several outputs comes back from their pieces, whatever their order.
    #[test]
    fn slices_join(cuts in prop::collection::btree_set(1u64..9, 0..4), reversed in any::<bool>()) {
        let mut source = Memory::default();
        let TensorExpr::Read(info) = source.add(DType::BF16, &[9, 2]) else { unreachable!() };
        let bounds: Vec<u64> = [0].into_iter().chain(cuts).chain([9]).collect();
        let (mut file, mut pieces) = (Memory::default(), Vec::new());
        for (at, pair) in bounds.windows(2).enumerate() {
            let expr = TensorExpr::SliceRows(Box::new(TensorExpr::Read(info.clone())), pair[0]..pair[1]);
            let (mut out, data) = output(&expr, &source);
            out.name = format!("out{at}");
            pieces.extend(invert(&expr, &out).unwrap());
            file.0.push((out, data.0[0].1.clone()));
        }
        if reversed {
            pieces.reverse();
        }
        let back = join(&info, pieces.clone()).unwrap();
        prop_assert_eq!(evaluate(&back, &file), source.0[0].1.clone());
        pieces.pop();
        let missing = matches!(join(&info, pieces), Err(InverseError::Missing { .. }));
        prop_assert!(missing);
    }
}

/// What `AddOne` keeps of a 16-bit weight comes back; its rounding is the only loss.
#[test]
fn one_is_taken_away_again() {
    let info = TensorInfo { name: "norm".into(), dtype: DType::BF16, shape: vec![1 << 16], file: PathBuf::new(), offset: 0 };
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let source = Memory(vec![(info.clone(), bytes)]);
    let expr = TensorExpr::AddOne(Box::new(TensorExpr::Read(info.clone())));
    let (out, file) = output(&expr, &source);
    let back = join(&info, invert(&expr, &out).unwrap()).unwrap();
    let found: Vec<f32> = evaluate(&back, &file).as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
    for (bits, found) in (0..=u16::MAX).zip(found) {
        let value = f32::from_bits(u32::from(bits) << 16);
        let magnitude = value.abs();
        // Eight significant bits lie above the last bit of a sum near 1, or of one as large as the weight itself.
        if value == 0.0 || (2f32.powi(-16)..2f32.powi(16)).contains(&magnitude) {
            assert_eq!(found, value, "{bits:04x}");
        } else if magnitude < 2f32.powi(-16) {
            assert!((found - value).abs() <= 2f32.powi(-24), "{bits:04x}");
        }
    }
}

#[test]
fn what_cannot_be_undone_says_so() {
    let mut source = Memory::default();
    let leaf = source.add(DType::F32, &[4, 2]);
    let TensorExpr::Read(info) = &leaf else { unreachable!() };
    let other = TensorInfo { shape: vec![2, 4], ..info.clone() };
    assert!(matches!(invert(&leaf, &other), Err(InverseError::Shape { .. })));
    let permuted = |axes: Vec<usize>| TensorExpr::PermuteRows { input: Box::new(leaf.clone()), dims: vec![2, 2], axes };
    for axes in [vec![0, 0], vec![0], vec![0, 2]] {
        assert!(matches!(invert(&permuted(axes), info), Err(InverseError::Axes { .. })));
    }
    let cut = TensorExpr::SliceRows(Box::new(permuted(vec![1, 0])), 0..2);
    let half = TensorInfo { shape: vec![2, 2], ..info.clone() };
    assert!(matches!(invert(&cut, &half), Err(InverseError::Cut { .. })));
    let twice = [invert(&leaf, info).unwrap(), invert(&leaf, info).unwrap()].concat();
    assert!(matches!(join(info, twice), Err(InverseError::Twice { .. })));
    assert!(matches!(join(info, Vec::new()), Err(InverseError::Missing { .. })));
    let table = TensorExpr::Values(vec![1], vec![1.0].into());
    assert!(invert(&table, &TensorInfo { shape: vec![1], ..info.clone() }).unwrap().is_empty());
}
