//! What can be wrong with a model description.

/// config.json and tensors do not make a model of this family.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ArchError {
    #[error("config.json is no JSON object")]
    NotAnObject,
}
