//! A directory that was written, against the source quantized once more.

use super::encode::Work;
use super::run::parallel;
use super::{Quantization, QuantizeError, QuantizeRun};
use ggufsmith_checkpoint::{Checkpoint, ModelDir};
use ggufsmith_core::schemes::dynamic8::Dynamic8;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    /// Tensors of the source whose stored forms were compared.
    pub tensors: usize,
    /// Those of them that are equal, all their states too.
    pub equal: usize,
    /// What is wrong, a line each.
    pub problems: Vec<String>,
}

impl Quantization {
    /// Read the directory again as any source is read, quantize this source once more, and compare all bytes of all tensors and of the
    /// small files.
    ///
    /// # Errors
    /// [`QuantizeError`]: a side cannot be read, or the run was stopped. What differs is no error but a finding.
    pub fn check(&self, run: &QuantizeRun<'_>) -> Result<Checked, QuantizeError> {
        let dir = ModelDir::open_with(&self.options.out, self.options.open.clone())?;
        let found = Checkpoint::open(&dir)?;
        let stored = found.stored();
        let shared = self.all_shared(run)?;
        let layout = self.layout(&shared)?;
        let mut problems: BTreeMap<usize, String> = BTreeMap::new();
        for (number, wanted) in layout.written.iter().enumerate() {
            let problem = match stored.info(&wanted.name) {
                None => "is missing".to_owned(),
                Some(info) if info.dtype != wanted.dtype || info.shape != wanted.shape => {
                    let (dtype, shape) = (info.dtype.name(), &info.shape);
                    format!("is {dtype} {shape:?}, the source gives {} {:?}", wanted.dtype.name(), wanted.shape)
                }
                Some(_) => continue,
            };
            problems.insert(number, problem);
        }
        let problems = Mutex::new(problems);
        let put = |tensor: usize, offset: u64, bytes: &[u8]| {
            let is_known = problems.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&tensor);
            if !is_known {
                let mut read = vec![0; bytes.len()];
                stored.read(&layout.written[tensor].name, offset, &mut read)?;
                if let Some(at) = read.iter().zip(bytes).position(|(a, b)| a != b) {
                    let problem = format!("differs from byte {} on from what the source gives", offset + at as u64);
                    problems.lock().unwrap_or_else(PoisonError::into_inner).insert(tensor, problem);
                }
            }
            Ok(())
        };
        let dynamic = Dynamic8::new();
        parallel(run, layout.jobs.len(), |index| {
            Work { quantization: self, run, dynamic: &dynamic, put: &put }.write(&layout.jobs[index])
        })?;
        let problems = problems.into_inner().unwrap_or_else(PoisonError::into_inner);
        let is_equal = |job: &&super::layout::Job| {
            let mut parts = job.states.iter().map(|(_, state)| *state).chain([job.tensor]);
            parts.all(|part| !problems.contains_key(&part))
        };
        let equal = layout.jobs.iter().filter(is_equal).count();
        let line = |(tensor, problem): (&usize, &String)| format!("{} {problem}", layout.written[*tensor].name);
        let mut lines: Vec<String> = problems.iter().map(line).collect();
        let names: BTreeSet<&str> = layout.written.iter().map(|written| written.name.as_str()).collect();
        let foreign = stored.tensors().iter().filter(|info| !names.contains(info.name.as_str()));
        lines.extend(foreign.map(|info| format!("{}: to this tensor nothing in the source corresponds", info.name)));
        for file in layout.files.iter().filter(|file| file.data.is_empty()) {
            let name = file.path.to_string_lossy();
            if dir.bytes(&name)?.as_ref() != Some(&file.header) {
                lines.push(format!("{name} is not what the source gives"));
            }
        }
        Ok(Checked { tensors: layout.jobs.len(), equal, problems: lines })
    }
}
