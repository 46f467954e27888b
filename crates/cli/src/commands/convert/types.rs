//! The options that decide tensors' types, as `llama-quantize` has them.

use crate::failure::Failure;
use crate::names;
use ggufsmith_convert::recipe::{Choices, Only, TensorType};
use ggufsmith_core::Format;
use std::path::PathBuf;

/// What a user decides instead of the recipes.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Types of tensors (files are then those of llama-quantize with the same options)")]
pub struct Arguments {
    /// No mixture: every matrix gets the file's type where its shape allows
    #[arg(long)]
    pure: bool,

    /// Keep output.weight as it is: in GGUF as in the input, from a directory as in the intermediate file
    #[arg(long)]
    leave_output_tensor: bool,

    /// Type of output.weight, or of the embedding where that is the output matrix too
    #[arg(long, value_name = "TYPE", value_parser = names::format)]
    output_tensor_type: Option<&'static Format>,

    /// Type of the token embedding
    #[arg(long, value_name = "TYPE", value_parser = names::format)]
    token_embedding_type: Option<&'static Format>,

    /// Type of tensors whose names match, e.g. attn_v=q6_k; the first match counts, of --tensor-type before --tensor-type-file
    #[arg(long, value_name = "REGEX=TYPE", value_parser = TensorType::parse)]
    tensor_type: Vec<TensorType>,

    /// File of REGEX=TYPE, separated by white space
    #[arg(long, value_name = "FILE")]
    tensor_type_file: Option<PathBuf>,

    /// Quantize these tensors alone and keep the others as they are (from a directory as in the intermediate file, --via):
    /// layers=0-11, ffn, attn_q,attn_k; repeat it to narrow layers to names
    #[arg(long, value_name = "WHICH")]
    only: Vec<Only>,
}

impl Arguments {
    /// What is selected.
    pub fn only(&self) -> Only {
        let mut only = Only::default();
        self.only.iter().cloned().for_each(|more| only.extend(more));
        only
    }

    /// The first option that was given and means something to GGUF files alone: all but `--only`.
    pub fn of_gguf(&self) -> Option<&'static str> {
        let given = [
            (self.pure, "--pure"),
            (self.leave_output_tensor, "--leave-output-tensor"),
            (self.output_tensor_type.is_some(), "--output-tensor-type"),
            (self.token_embedding_type.is_some(), "--token-embedding-type"),
            (!self.tensor_type.is_empty(), "--tensor-type"),
            (self.tensor_type_file.is_some(), "--tensor-type-file"),
        ];
        given.into_iter().find(|(given, _)| *given).map(|(_, flag)| flag)
    }

    /// The choices; the only input is `--tensor-type-file`.
    pub fn choices(&self) -> Result<Choices, Failure> {
        let mut tensor_types = self.tensor_type.clone();
        if let Some(file) = &self.tensor_type_file {
            let fault = |error: &dyn std::fmt::Display| Failure::new(format!("--tensor-type-file {}: {error}", file.display()));
            let text = std::fs::read_to_string(file).map_err(|error| fault(&error))?;
            tensor_types.extend(TensorType::parse_all(&text).map_err(|error| fault(&error))?);
        }
        let only = self.only();
        Ok(Choices {
            pure: self.pure,
            leave_output: self.leave_output_tensor,
            output_type: self.output_tensor_type,
            embedding_type: self.token_embedding_type,
            tensor_types,
            only,
        })
    }
}
