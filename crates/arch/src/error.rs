//! What can be wrong with a model description.

/// config.json and tensors do not make a model of this family.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ArchError {
    #[error("config.json is no JSON object")]
    NotAnObject,
    #[error("config.json names no model class: its key \"architectures\" should be a list such as [\"LlamaForCausalLM\"]")]
    NoClass,
    #[error(
        "the model class {class} is not supported{}; supported are {}. CONTRIBUTING.md says how to add a class",
        hint(nearest), supported.join(", ")
    )]
    UnknownClass { class: String, supported: Vec<&'static str>, nearest: Vec<&'static str> },
    #[error("config.json has no {key}, and {class} has no default for it")]
    MissingKey { key: String, class: &'static str },
    #[error("config.json: {key} should be {expected}, it is {found}")]
    KeyValue { key: String, expected: &'static str, found: String },
    #[error("config.json: {first} and {second} contradict each other: remove the one that does not hold")]
    KeyConflict { first: String, second: String },
    #[error(
        "config.json says {key} = {value}, which means something in other architectures and nothing in {class}: the model would be converted wrongly. If it has no meaning here, remove the key"
    )]
    ForeignKey { key: String, value: String, class: &'static str },
    #[error("config.json has keys that {class} does not know: {}", keys.join(", "))]
    UnknownKeys { keys: Vec<String>, class: &'static str },
    #[error("tensor {tensor:?} belongs to no part of {class}")]
    UnknownTensor { tensor: String, class: &'static str },
    #[error("tensor {tensor:?} belongs to layer {layer}, config.json says num_hidden_layers = {n_layer}")]
    LayerBeyond { tensor: String, layer: u32, n_layer: u32 },
    #[error("tensor {tensor:?} is number {number} of its kind, config.json says there are {count} ({what}), counted from 0")]
    NumberBeyond { tensor: String, number: u32, count: u64, what: &'static str },
    #[error("the tensors {first:?} and {second:?} are both {output}")]
    TensorTwice { first: String, second: String, output: String },
    #[error("the checkpoint has no tensor {tensor:?}, which {class} needs{because}")]
    MissingTensor { tensor: String, class: &'static str, because: String },
    #[error("tensor {tensor:?} has the shape {found:?}, config.json makes it {expected:?} ({meaning})")]
    Shape { tensor: String, expected: Vec<u64>, found: Vec<u64>, meaning: String },
}

fn hint(nearest: &[&str]) -> String {
    if nearest.is_empty() { String::new() } else { format!(" (did you mean {}?)", nearest.join(" or ")) }
}
