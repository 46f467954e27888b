//! Tensors cut into tiles: the same cuts whatever the number of threads.

use ggufsmith_core::{Format, TensorExpr};
use ggufsmith_gguf::GgufTensor;
use std::ops::Range;

/// Source bytes per tile, where rows allow.
const TILE_BYTES: u64 = 1 << 20;

/// A run of elements of a tensor: whole rows of one expert, or a part of one long row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tile {
    /// Position of the tensor in the list of work.
    pub(super) item: usize,
    /// Row-major positions in the tensor.
    pub(super) elems: Range<u64>,
    /// Elements of a row, or of the part.
    pub(super) cols: u64,
    /// Number of the expert.
    pub(super) expert: u64,
}

impl Tile {
    pub(super) fn len(&self) -> usize {
        (self.elems.end - self.elems.start) as usize
    }
}

/// Where in its tensor's data the block of an element starts, in bytes.
pub(super) fn byte_of(format: &Format, elem: u64) -> u64 {
    elem / format.block_len as u64 * format.block_bytes as u64
}

/// Source bytes that an element stands for.
pub(super) fn source_bytes_per_element(expr: &TensorExpr) -> u64 {
    expr.reads().first().map_or(4, |info| info.dtype.bytes() as u64)
}

/// The tiles of a tensor whose elements come from `expr`, in order. `whole_rows`: rows are never cut.
pub(super) fn tiles(item: usize, tensor: &GgufTensor, expr: &TensorExpr, whole_rows: bool) -> Vec<Tile> {
    let (rows, cols) = (tensor.rows(), tensor.cols());
    let shape = &tensor.shape;
    let rows_per_expert = if shape.len() > 2 { shape[shape.len() - 2] } else { rows };
    let wanted = TILE_BYTES / source_bytes_per_element(expr);
    let mut tiles = Vec::new();
    if cols > wanted && !whole_rows && expr.min_rows() == 1 {
        let block = tensor.format.block_len as u64;
        let part = (wanted / block).max(1) * block;
        for row in 0..rows {
            for from in (0..cols).step_by(part as usize) {
                let to = (from + part).min(cols);
                let elems = row * cols + from..row * cols + to;
                tiles.push(Tile { item, elems, cols: to - from, expert: row / rows_per_expert });
            }
        }
        return tiles;
    }
    let at_once = (wanted / cols).max(expr.min_rows()).clamp(1, rows_per_expert);
    let mut row = 0;
    while row < rows {
        let end = (row + at_once).min((row / rows_per_expert + 1) * rows_per_expert);
        tiles.push(Tile { item, elems: row * cols..end * cols, cols, expert: row / rows_per_expert });
        row = end;
    }
    tiles
}

#[cfg(test)]
mod tests {
    use super::*;
    use ggufsmith_core::{DType, TensorInfo, formats};

    fn cut(shape: &[u64], whole_rows: bool) -> Vec<Tile> {
        let info = TensorInfo { name: "w".into(), dtype: DType::F32, shape: shape.to_vec(), file: Default::default(), offset: 0 };
        let format = &formats::q8_0::FORMAT;
        let tensor = GgufTensor { name: "w".into(), shape: shape.to_vec(), format, offset: 0, bytes: 0 };
        tiles(0, &tensor, &TensorExpr::Read(info), whole_rows)
    }

    #[test]
    fn tiles_cover_a_tensor_once_and_end_where_experts_end() {
        for (shape, whole_rows) in [(&[1000, 1024][..], true), (&[3, 100, 4096], true), (&[2, 1 << 20], false), (&[7], true)] {
            let tiles = cut(shape, whole_rows);
            let mut at = 0;
            for tile in &tiles {
                assert_eq!(tile.elems.start, at);
                assert!(tile.elems.end - at <= 1 << 18 && (tile.len() as u64).is_multiple_of(tile.cols));
                at = tile.elems.end;
            }
            assert_eq!(at, shape.iter().product::<u64>());
            if shape.len() == 3 {
                assert!(tiles.iter().all(|tile| (tile.elems.end - 1) / (100 * 4096) == tile.expert));
            }
        }
        assert_eq!(cut(&[2, 1 << 20], true).len(), 2, "with importance a row is one piece");
    }
}
