//! What encodes a chunk: the CPU here, a GPU in the crate `gpu`.

use crate::encoder::{EncodeError, Encoder, Rows};

/// One encoder of chunks. The pipeline gives each worker its own thread; all of them pull from the same queue.
pub trait Worker: Send {
    /// `cpu`, or the adapter's name: for the summary's shares.
    fn name(&self) -> &str;

    /// Encode whole rows with `encoder` into `out` (exactly the encoder's size for them). The bytes are those of
    /// [`Encoder::encode`], whatever the worker: one that cannot do a chunk exactly does it on the CPU.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    fn encode(
        &mut self,
        encoder: &'static Encoder,
        rows: Rows<'_>,
        importance: Option<&[f32]>,
        out: &mut [u8],
    ) -> Result<(), EncodeError>;

    /// The calls of [`Worker::encode`] whose bytes must not stand, 0 being the first call that this worker was given. They are to be
    /// encoded again on the CPU before the output is finished.
    ///
    /// To be asked once no worker has anything left to do: a worker on a device that gave a wrong byte late takes back what it gave
    /// early, and workers may share a device. A worker on the CPU never takes anything back.
    fn retracted(&self) -> Vec<u64> {
        Vec::new()
    }
}

/// Encodes on the calling thread.
#[derive(Debug, Default, Clone, Copy)]
pub struct CpuWorker;

impl Worker for CpuWorker {
    fn name(&self) -> &str {
        "cpu"
    }

    fn encode(
        &mut self,
        encoder: &'static Encoder,
        rows: Rows<'_>,
        importance: Option<&[f32]>,
        out: &mut [u8],
    ) -> Result<(), EncodeError> {
        encoder.encode(rows, importance, out)
    }
}
