//! Worker threads.

use crate::failure::Failure;

/// As many as asked for, else one for each core.
pub fn count(asked: Option<u16>) -> usize {
    asked.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from)
}

/// A pool of them.
pub fn pool(asked: Option<u16>) -> Result<rayon::ThreadPool, Failure> {
    Ok(rayon::ThreadPoolBuilder::new().num_threads(count(asked)).build()?)
}
