//! Which tensors and files are written.

use super::encode::{Shared, state_text};
use super::{COPIED, Method, NESTED_BLOCK_LEN, Quantization, QuantizeError};
use crate::export::safetensors;
use crate::sink::SinkFile;
use ggufsmith_checkpoint::int8::{Int8Scheme, SCALE, ZERO_POINT};
use ggufsmith_checkpoint::modules::module_of;
use ggufsmith_core::DType;
use ggufsmith_core::schemes::int8_affine::Codes;

/// A tensor to be written.
#[derive(Debug)]
pub(super) struct Written {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<u64>,
    /// File number and first byte.
    pub place: (usize, u64),
}

impl Written {
    pub fn bytes(&self) -> u64 {
        self.shape.iter().product::<u64>() * self.dtype.bytes() as u64
    }
}

/// Which of the written tensors belong to a tensor of the source: the tensor itself, and its states by what their names end with.
#[derive(Debug)]
pub(super) struct Job {
    pub source: usize,
    pub tensor: usize,
    pub states: Vec<(&'static str, usize)>,
    pub shared: Option<Shared>,
}

/// Everything that is written.
#[derive(Debug)]
pub(super) struct Layout {
    pub written: Vec<Written>,
    pub jobs: Vec<Job>,
    /// Small files first, whole; then the weights'. Names without a directory.
    pub files: Vec<SinkFile>,
}

impl Quantization {
    /// Place all tensors, of which `shared` says what all elements decide together.
    pub(super) fn layout(&self, shared: &[Option<Shared>]) -> Result<Layout, QuantizeError> {
        let mut written = Vec::new();
        let jobs = self.jobs(shared, &mut written);
        let mut files = vec![whole_file("config.json", self.config())];
        for &name in COPIED {
            files.extend(self.dir.bytes(name)?.map(|bytes| whole_file(name, bytes)));
        }
        let mut order: Vec<usize> = (0..written.len()).collect();
        order.sort_by(|&a, &b| written[a].name.cmp(&written[b].name));
        if let Some(pair) = order.windows(2).find(|pair| written[pair[0]].name == written[pair[1]].name) {
            return Err(QuantizeError::Name { tensor: written[pair[0]].name.clone() });
        }
        let specs: Vec<_> = order
            .iter()
            .map(|&index| {
                let Written { name, dtype, shape, .. } = &written[index];
                safetensors::Spec { name, dtype: *dtype, shape }
            })
            .collect();
        let (shards, index) = safetensors::place(&specs, self.options.max_shard_bytes);
        files.extend(index.map(|index| whole_file("model.safetensors.index.json", format!("{index:#}\n").into_bytes())));
        for shard in shards {
            for (spec, range) in &shard.tensors {
                written[order[*spec]].place = (files.len(), range.start);
            }
            let data = shard.tensors.into_iter().map(|(_, range)| range).collect();
            files.push(SinkFile { path: shard.name.into(), bytes: shard.bytes, header: shard.header, data });
        }
        Ok(Layout { written, jobs, files })
    }

    /// What is written for each tensor of the source.
    fn jobs(&self, shared: &[Option<Shared>], written: &mut Vec<Written>) -> Vec<Job> {
        use ggufsmith_core::TensorSource;
        let mut jobs = Vec::new();
        for (source, info) in self.checkpoint.tensors().iter().enumerate() {
            let mut add = |name: String, dtype, shape| {
                written.push(Written { name, dtype, shape, place: (0, 0) });
                written.len() - 1
            };
            let shared = shared.get(source).copied().flatten();
            let mut states = Vec::new();
            let tensor = match self.options.method {
                _ if self.kept[source].is_some() => add(info.name.clone(), info.dtype, info.shape.clone()),
                Method::Int8 => {
                    let module = module_of(&info.name);
                    states.push(("SCB", add(format!("{module}.SCB"), DType::F32, vec![info.shape[0]])));
                    states.push(("weight_format", add(format!("{module}.weight_format"), DType::U8, Vec::new())));
                    add(info.name.clone(), DType::I8, info.shape.clone())
                }
                Method::FourBit { scheme, block_len, double } => {
                    let blocks = info.elems().div_ceil(block_len);
                    let mut state = |end: &'static str, suffix: &str, dtype, len| {
                        states.push((end, add(format!("{}.{end}{suffix}", info.name), dtype, vec![len])));
                    };
                    state("absmax", "", if double { DType::U8 } else { DType::F32 }, blocks);
                    state("quant_map", "", DType::F32, 16);
                    if double {
                        state("nested_absmax", "", DType::F32, blocks.div_ceil(NESTED_BLOCK_LEN));
                        state("nested_quant_map", "", DType::F32, 256);
                    }
                    let text = state_text(info, scheme, block_len, shared);
                    let suffix = format!(".bitsandbytes__{}", scheme.name.to_lowercase());
                    state("quant_state", &suffix, DType::U8, text.len() as u64);
                    add(info.name.clone(), DType::U8, vec![info.elems().div_ceil(2), 1])
                }
                Method::Plain(config) => {
                    let shape = if config.per_row { vec![info.shape[0]] } else { Vec::new() };
                    states.push((SCALE, add(format!("{}{SCALE}", info.name), DType::F32, shape.clone())));
                    if let Int8Scheme::Affine(_) = config.scheme {
                        states.push((ZERO_POINT, add(format!("{}{ZERO_POINT}", info.name), DType::I64, shape)));
                    }
                    let dtype = match config.scheme.codes() {
                        Codes::Signed => DType::I8,
                        Codes::Unsigned => DType::U8,
                    };
                    add(info.name.clone(), dtype, info.shape.clone())
                }
            };
            jobs.push(Job { source, tensor, states, shared });
        }
        jobs
    }
}

fn whole_file(name: &str, header: Vec<u8>) -> SinkFile {
    SinkFile { path: name.into(), bytes: header.len() as u64, header, data: Vec::new() }
}
