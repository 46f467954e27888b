//! The Hugging Face Hub: models are read from it and verified files published to it.
//!
//! The library prints nothing and reads no environment: the caller hands in token, endpoint, cache and a way to stop. (Proxies are
//! the exception: reqwest takes them from `HTTPS_PROXY` and its like, as every client does.)
#![forbid(unsafe_code)]

mod cache;
pub mod card;
mod dates;
mod download;
mod error;
mod heads;
mod http;
mod info;
mod names;
mod publish;
mod settings;
pub mod stream;
#[cfg(test)]
mod testing;

pub use cache::RepoCache;
pub use download::{Snapshot, Watch};
pub use error::{At, HubError};
pub use heads::Heads;
pub use http::{Answer, Client, Content, Range, Repeat, Request, origin};
pub use info::{Entry, Hash, Listing};
pub use names::{BlobName, FileName, RepoId, Revision, encode_segment};
pub use publish::{Account, Local, Published, State, UploadWatch, Wish};
pub use settings::{Cancel, Settings, Token};
