//! llama-perplexity's file of log-probabilities (`--kl-divergence-base`), written and read.
//!
//! | bytes | field |
//! | --- | --- |
//! | 8 | `_logits_` |
//! | 4 + 4 + 4 | `n_ctx`, `n_vocab`, number of windows |
//! | 4 each | the tokens of all windows |
//! | per scored position | F32 scale, F32 smallest log-probability, then a U16 for each vocabulary entry, padded to an even number |
//!
//! A log-probability is `scale * code + smallest`; what lies more than 16 below the largest is cut off there. Source: `log_softmax` and
//! `kl_divergence` of llama.cpp's tools/perplexity/perplexity.cpp. The file is large: 2 bytes for each entry and position.

use super::{Sample, windows};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"_logits_";
/// How far below the largest logit others are kept.
const RANGE: f32 = 16.0;

/// Why a file of log-probabilities cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LogitsError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is no file of log-probabilities of llama-perplexity: {what}", path.display())]
    Format { path: PathBuf, what: String },
    #[error("{} was made for {theirs} {what}, this run has {ours}", path.display())]
    Other { path: PathBuf, what: &'static str, theirs: u64, ours: u64 },
}

/// Bytes of a row.
fn row_bytes(n_vocab: usize) -> usize {
    (n_vocab.next_multiple_of(2) + 4) * 2
}

/// Bytes of the whole file.
fn file_bytes(n_ctx: usize, n_vocab: usize, windows: usize) -> u128 {
    // Three numbers of 32 bits: products of all of them fit 128.
    let rows = windows as u128 * (n_ctx - 1 - n_ctx / 2) as u128;
    20 + windows as u128 * n_ctx as u128 * 4 + rows * row_bytes(n_vocab) as u128
}

/// Writes a file; it appears under its name when it is complete.
pub struct LogitsWriter {
    path: PathBuf,
    temporary: PathBuf,
    out: Option<BufWriter<File>>,
    n_vocab: usize,
    rows_left: u64,
    row: Vec<u8>,
}

impl LogitsWriter {
    /// Begin a file for windows of one length.
    ///
    /// # Errors
    /// [`LogitsError`] where it cannot be written.
    pub fn create(path: &Path, n_vocab: usize, samples: &[Sample]) -> Result<Self, LogitsError> {
        let n_ctx = samples.first().map_or(0, |sample| sample.tokens.len());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let temporary = path.with_file_name(format!(".{name}.partial"));
        let rows_left = samples.iter().map(|sample| sample.scored.len() as u64).sum();
        let mut writer = LogitsWriter {
            path: path.to_owned(),
            temporary,
            out: None,
            n_vocab,
            rows_left,
            row: Vec::with_capacity(row_bytes(n_vocab)),
        };
        let begin = |temporary: &Path| {
            let mut out = BufWriter::with_capacity(1 << 20, File::create(temporary)?);
            out.write_all(&MAGIC)?;
            for number in [n_ctx as u32, n_vocab as u32, samples.len() as u32] {
                out.write_all(&number.to_le_bytes())?;
            }
            for token in samples.iter().flat_map(|sample| &sample.tokens) {
                out.write_all(&token.to_le_bytes())?;
            }
            Ok(out)
        };
        writer.out = Some(begin(&writer.temporary).map_err(|source| writer.io(source))?);
        Ok(writer)
    }

    /// The size of a file that would be written, in bytes.
    pub fn bytes(n_vocab: usize, samples: &[Sample]) -> u64 {
        let n_ctx = samples.first().map_or(4, |sample| sample.tokens.len());
        u64::try_from(file_bytes(n_ctx, n_vocab, samples.len())).unwrap_or(u64::MAX)
    }

    fn io(&self, source: io::Error) -> LogitsError {
        LogitsError::Io { path: self.path.clone(), source }
    }

    /// Append the logits (`[n_vocab]`) of the next scored position.
    ///
    /// # Errors
    /// [`LogitsError`] where the file cannot be written.
    pub fn row(&mut self, logits: &[f32]) -> Result<(), LogitsError> {
        debug_assert_eq!(logits.len(), self.n_vocab);
        encode(logits, &mut self.row);
        self.rows_left = self.rows_left.saturating_sub(1);
        let written = self.out.as_mut().map_or(Ok(()), |out| out.write_all(&self.row));
        written.map_err(|source| self.io(source))
    }

    /// Let the file appear.
    ///
    /// # Errors
    /// [`LogitsError`] where rows are missing or the file cannot be written.
    pub fn finish(mut self) -> Result<(), LogitsError> {
        if self.rows_left > 0 {
            return Err(self.io(io::Error::other(format!("{} rows are missing", self.rows_left))));
        }
        let Some(out) = self.out.take() else { return Ok(()) };
        let end = |temporary: &Path, path: &Path| {
            out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            std::fs::rename(temporary, path)
        };
        end(&self.temporary, &self.path).map_err(|source| {
            let _ = std::fs::remove_file(&self.temporary);
            self.io(source)
        })
    }
}

impl Drop for LogitsWriter {
    fn drop(&mut self) {
        if self.out.take().is_some() {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Log-probabilities up to this are no part of a KL divergence to llama-perplexity: what the file has there is its lower end, far above
/// the real values.
const REST: f32 = -16.0;
/// The exponential of this is 0.
const NOTHING: f32 = -1000.0;

/// Give the entries of a row that only say "little" no probability, as llama-perplexity does; `target` keeps its own.
pub(super) fn leave_out_the_rest(row: &mut [f32], target: u32) {
    for (token, value) in row.iter_mut().enumerate() {
        if *value <= REST && token != target as usize {
            *value = NOTHING;
        }
    }
}

/// One row, as llama-perplexity rounds it.
fn encode(logits: &[f32], row: &mut Vec<u8>) {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let min = logits.iter().copied().fold(f32::INFINITY, f32::min).max(max - RANGE);
    let log_sum = logits.iter().map(|logit| f64::from((logit - max).exp())).sum::<f64>().ln() as f32;
    let scale = (max - min) / 65535.0;
    row.clear();
    row.extend_from_slice(&scale.to_le_bytes());
    row.extend_from_slice(&(min - max - log_sum).to_le_bytes());
    let inverse = 1.0 / scale;
    for &logit in logits {
        let code = if scale > 0.0 && logit > min { (inverse * (logit - min)).round_ties_even() as u16 } else { 0 };
        row.extend_from_slice(&code.to_le_bytes());
    }
    row.resize(row_bytes(logits.len()), 0);
}

/// A file that is read, row after row.
pub struct LogitsFile {
    path: PathBuf,
    input: BufReader<File>,
    n_ctx: usize,
    n_vocab: usize,
    tokens: Vec<u32>,
    /// Rows that were read.
    rows: usize,
    cut_off: usize,
    raw: Vec<u8>,
}

impl LogitsFile {
    /// Open a file and read its tokens.
    ///
    /// # Errors
    /// [`LogitsError`] where it cannot be read or its size is not what its header says.
    pub fn open(path: &Path) -> Result<Self, LogitsError> {
        let io = |source| LogitsError::Io { path: path.to_owned(), source };
        let format = |what: String| LogitsError::Format { path: path.to_owned(), what };
        let file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let mut input = BufReader::with_capacity(1 << 20, file);
        let mut header = [0; 20];
        input.read_exact(&mut header).map_err(|_| format(format!("it has {len} bytes, no whole header")))?;
        if header[..8] != MAGIC {
            return Err(format("it does not begin with _logits_".to_owned()));
        }
        let number = |at: usize| header[at..at + 4].iter().rev().fold(0u32, |n, byte| n << 8 | u32::from(*byte)) as usize;
        let (n_ctx, n_vocab, windows) = (number(8), number(12), number(16));
        if n_ctx < 4 || n_vocab == 0 || windows == 0 {
            return Err(format(format!("windows of {n_ctx} tokens, {n_vocab} vocabulary entries, {windows} windows")));
        }
        // Checked before anything is given room by these numbers.
        let expected = file_bytes(n_ctx, n_vocab, windows);
        if u128::from(len) != expected {
            return Err(format(format!("it has {len} bytes, its header promises {expected}")));
        }
        let mut raw = vec![0; windows * n_ctx * 4];
        input.read_exact(&mut raw).map_err(io)?;
        let tokens: Vec<u32> = raw.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        if let Some(token) = tokens.iter().find(|token| **token as usize >= n_vocab) {
            return Err(format(format!("it has the token {token} of a vocabulary of {n_vocab}")));
        }
        let raw = vec![0; row_bytes(n_vocab)];
        Ok(LogitsFile { path: path.to_owned(), input, n_ctx, n_vocab, tokens, rows: 0, cut_off: 0, raw })
    }

    /// The windows it was made of.
    pub fn samples(&self, bos: Option<u32>) -> Vec<Sample> {
        // Its size has been checked: there is at least one window.
        windows(&self.tokens, self.n_ctx, bos, None).unwrap_or_default()
    }

    /// Vocabulary entries.
    pub fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    /// Tokens per window.
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Of the rows that were read, those whose next token has the smallest log-probability that is kept: its own may be smaller still.
    pub fn cut_off(&self) -> usize {
        self.cut_off
    }

    /// The token behind the position of a row.
    fn next_token(&self, row: usize) -> Option<u32> {
        let (first, rows) = (self.n_ctx / 2, self.n_ctx - 1 - self.n_ctx / 2);
        self.tokens.get(row / rows * self.n_ctx + first + row % rows + 1).copied()
    }

    /// An error that names this file.
    pub(crate) fn other(&self, what: &'static str, theirs: usize, ours: usize) -> LogitsError {
        LogitsError::Other { path: self.path.clone(), what, theirs: theirs as u64, ours: ours as u64 }
    }

    /// Log-probabilities of the next scored position, `[n_vocab]`.
    ///
    /// # Errors
    /// [`LogitsError`] where the file cannot be read.
    pub fn row(&mut self, out: &mut [f32]) -> Result<(), LogitsError> {
        if let Err(source) = self.input.read_exact(&mut self.raw) {
            return Err(LogitsError::Io { path: self.path.clone(), source });
        }
        let words = self.raw.as_chunks::<4>().0;
        let (scale, smallest) = (f32::from_le_bytes(words[0]), f32::from_le_bytes(words[1]));
        for (value, code) in out.iter_mut().zip(self.raw[8..].as_chunks::<2>().0) {
            *value = scale * f32::from(u16::from_le_bytes(*code)) + smallest;
        }
        let next = self.next_token(self.rows).and_then(|token| out.get(token as usize));
        self.cut_off += usize::from(next.is_some_and(|value| *value <= smallest));
        self.rows += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Sample> {
        windows(&(0..16).map(|token| token % 11).collect::<Vec<u32>>(), 8, None, None).unwrap()
    }

    fn logits(row: usize) -> Vec<f32> {
        (0..11).map(|i| ((i * 7 + row * 3) % 11) as f32 * 2.5 - 3.0).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("base");
        let mut writer = LogitsWriter::create(&path, 11, &samples()).unwrap();
        (0..6).for_each(|row| writer.row(&logits(row)).unwrap());
        assert!(!path.exists());
        writer.finish().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), LogitsWriter::bytes(11, &samples()));
        let mut file = LogitsFile::open(&path).unwrap();
        assert_eq!((file.samples(None), file.n_vocab(), file.n_ctx()), (samples(), 11, 8));
        let mut row = [0.0; 11];
        for number in 0..6 {
            file.row(&mut row).unwrap();
            let logits = logits(number);
            let log_sum = logits.iter().map(|l| f64::from(*l).exp()).sum::<f64>().ln();
            let max = logits.iter().copied().fold(f32::MIN, f32::max);
            for (found, logit) in row.iter().zip(&logits) {
                let expected = f64::from(logit.max(max - 16.0)) - log_sum;
                assert!((f64::from(*found) - expected).abs() < 2e-4, "{found} {expected}");
            }
        }
        assert!(file.row(&mut row).is_err());
        // Logits reach from -3 to 22: what is up to 6 is cut off.
        let next = [5, 6, 7, 2, 3, 4];
        let cut = (0..6).filter(|row| logits(*row)[next[*row]] <= 6.0).count();
        assert!(cut > 0 && cut < 6);
        assert_eq!(file.cut_off(), cut);
    }

    #[test]
    fn what_only_says_little_is_left_out() {
        let mut row = [-0.5, -16.0, -15.99, -17.0, -20.0];
        leave_out_the_rest(&mut row, 3);
        assert_eq!(row, [-0.5, NOTHING, -15.99, -17.0, NOTHING]);
        assert_eq!(ggufsmith_infer::ops::exp(NOTHING), 0.0);
    }

    #[test]
    fn files_that_are_not_whole_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("base");
        let mut writer = LogitsWriter::create(&path, 11, &samples()).unwrap();
        writer.row(&logits(0)).unwrap();
        assert!(writer.finish().is_err());
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing is left");

        let mut bytes = MAGIC.to_vec();
        for number in [8u32, 11, 2] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for (what, bytes) in [("short", bytes[..15].to_vec()), ("no rows", bytes.clone()), ("magic", vec![b'x'; 200])] {
            std::fs::write(&path, bytes).unwrap();
            assert!(matches!(LogitsFile::open(&path), Err(LogitsError::Format { .. })), "{what}");
        }
        let huge = [&MAGIC[..], &[255; 12]].concat();
        std::fs::write(&path, huge).unwrap();
        assert!(LogitsFile::open(&path).is_err());
    }
}
