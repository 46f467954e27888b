//! The mixtures of `llama-quantize`: which tensors get more or fewer bits than the file's type (llama-quant.cpp,
//! `llama_tensor_get_type_impl`).

use super::category::{Category, GLM5_NEXT};
use super::ids::{ftype, ggml};
use super::quantize::{QuantizeTensor, RecipeError};
use super::{Context, FileType, format};
use ggufsmith_core::Format;

/// The counters of one walk over a file's tensors. A tensor that the rules do not decide does not count.
pub(super) struct Mixture<'a> {
    file: &'a FileType,
    context: Context<'a>,
    /// The embedding is the output matrix too.
    tied: bool,
    /// `--output-tensor-type`.
    output_type: Option<&'static Format>,
    /// Number of value matrices.
    n_attn_v: i64,
    i_attn_v: i64,
    i_ffn_down: i64,
    i_ffn_gate: i64,
    i_ffn_up: i64,
}

/// A chosen type, by its id, and why.
type Choice = (u32, &'static str);

const FILE_TYPE: &str = "file type";
const FIRST_EIGHTH: &str = "first eighth of the layers: more bits";
const OUTER_AND_EVERY_THIRD: &str = "first and last eighth of the layers and every third between: more bits";
const GROUPED: &str = "values shared by 4 or more heads: more bits";
const EIGHT_EXPERTS: &str = "8 experts: more bits";

impl<'a> Mixture<'a> {
    pub(super) fn new(
        file: &'a FileType,
        context: Context<'a>,
        output_type: Option<&'static Format>,
        tensors: &[QuantizeTensor<'_>],
    ) -> Self {
        let count = |category| tensors.iter().filter(|t| Category::of(t.name) == category).count();
        let (tied, n_attn_v) = (count(Category::Output) == 0, count(Category::AttnV) as i64);
        Mixture { file, context, tied, output_type, n_attn_v, i_attn_v: 0, i_ffn_down: 0, i_ffn_gate: 0, i_ffn_up: 0 }
    }

    /// The type of one tensor; tensors must come in the order of the file.
    pub(super) fn decide(&mut self, tensor: &QuantizeTensor<'_>) -> Result<(&'static Format, &'static str), RecipeError> {
        let category = Category::of(tensor.name);
        if let Some(output_type) = self.output_type
            && (category == Category::Output || (self.tied && category == Category::TokenEmbedding))
            && !self.is_glm_query(tensor)
        {
            return Ok((output_type, "--output-tensor-type: the embedding is the output matrix"));
        }
        let chosen = self.choose(category, tensor)?;
        // The default type and the rules' own types are all in the tables.
        Ok(chosen.map_or((self.file.format, FILE_TYPE), |(id, rule)| (format(id), rule)))
    }

    fn is_glm_query(&self, tensor: &QuantizeTensor<'_>) -> bool {
        let parts = ["attn_q_a", "attn_q_b", "nextn.eh_proj"];
        self.context.arch == GLM5_NEXT && parts.iter().any(|part| tensor.name.contains(part))
    }

    fn choose(&mut self, category: Category, tensor: &QuantizeTensor<'_>) -> Result<Option<Choice>, RecipeError> {
        if self.is_glm_query(tensor) {
            return Ok(Some((ggml::Q8_0, "projections of this architecture: Q8_0")));
        }
        if category == Category::Output || (self.tied && category == Category::TokenEmbedding) {
            return Ok(self.output(tensor));
        }
        if self.file.ftype == ftype::MXFP4_MOE {
            return Ok(Some(self.mxfp4(category, tensor)));
        }
        if category == Category::TokenEmbedding {
            return Ok(self.embedding());
        }
        let tiny =
            matches!(self.file.ftype, ftype::IQ1_S | ftype::IQ1_M | ftype::IQ2_XXS | ftype::IQ2_XS | ftype::IQ2_S | ftype::IQ2_M);
        match category {
            _ if tiny => Ok(self.tiny(category)),
            Category::AttnV => Ok(self.attn_v()),
            Category::AttnK | Category::AttnQ => Ok(self.attn_k_or_q(category)),
            Category::FfnDown => self.ffn_down(tensor),
            Category::AttnOutput => Ok(self.attn_output()),
            Category::FfnGate | Category::FfnUp => self.ffn_gate_or_up(category, tensor),
            Category::Output | Category::TokenEmbedding | Category::Other => Ok(None),
        }
    }

    fn output(&self, tensor: &QuantizeTensor<'_>) -> Option<Choice> {
        let cols = tensor.shape.last().copied().unwrap_or(0);
        let default = self.file.format;
        match self.file.ftype {
            _ if self.is_falcon() || !cols.is_multiple_of(default.block_len as u64) => {
                Some((ggml::Q8_0, "output matrix: Q8_0 for this model"))
            }
            ftype::MXFP4_MOE => Some((ggml::Q8_0, "output matrix: Q8_0")),
            ftype::IQ1_S | ftype::IQ1_M | ftype::IQ2_XXS | ftype::IQ2_XS | ftype::IQ2_S | ftype::IQ2_M | ftype::IQ3_XXS => {
                Some((ggml::Q5_K, "output matrix: at least Q5_K"))
            }
            _ if default.ggml_id != ggml::Q8_0 => Some((ggml::Q6_K, "output matrix: at least Q6_K")),
            _ => None,
        }
    }

    fn mxfp4(&self, category: Category, tensor: &QuantizeTensor<'_>) -> Choice {
        let experts = tensor.shape.len() > 2 && tensor.shape[tensor.shape.len() - 3] > 1;
        let ffn = matches!(category, Category::FfnUp | Category::FfnGate | Category::FfnDown);
        if experts && (self.context.arch != "bailingmoe3" || ffn) {
            (ggml::MXFP4, "experts: MXFP4")
        } else {
            (ggml::Q8_0, "no experts: Q8_0")
        }
    }

    fn embedding(&self) -> Option<Choice> {
        let id = match self.file.ftype {
            ftype::IQ1_S | ftype::IQ1_M | ftype::IQ2_XXS | ftype::IQ2_XS => ggml::Q2_K,
            ftype::IQ2_S | ftype::IQ2_M | ftype::IQ3_XXS => ggml::IQ3_S,
            ftype::TQ1_0 | ftype::TQ2_0 | ftype::Q2_0 => ggml::Q4_K,
            _ => return None,
        };
        Some((id, "token embedding: more bits"))
    }

    /// Files of 1 and 2 bits.
    fn tiny(&mut self, category: Category) -> Option<Choice> {
        let two = matches!(self.file.ftype, ftype::IQ2_S | ftype::IQ2_M);
        let better = if two { ggml::IQ3_S } else { ggml::Q2_K };
        let n_expert = self.context.inputs.n_expert;
        match category {
            Category::AttnV => {
                self.i_attn_v += 1;
                if self.gqa() >= 4 {
                    Some((ggml::Q4_K, GROUPED))
                } else if n_expert >= 4 {
                    Some((ggml::Q4_K, "values of a model of 4 or more experts: more bits"))
                } else {
                    Some((better, "values: more bits"))
                }
            }
            Category::AttnK if n_expert == 8 => Some((ggml::Q4_K, EIGHT_EXPERTS)),
            Category::FfnDown => {
                self.i_ffn_down += 1;
                (self.i_ffn_down - 1 < self.n_layer() / 8).then_some((better, FIRST_EIGHTH))
            }
            Category::AttnOutput if n_expert == 8 => Some((ggml::Q5_K, EIGHT_EXPERTS)),
            Category::AttnOutput => match self.file.ftype {
                ftype::IQ1_S | ftype::IQ1_M => Some((ggml::IQ2_XXS, "attention output: more bits")),
                _ if two => Some((ggml::IQ3_S, "attention output: more bits")),
                _ => None,
            },
            _ => None,
        }
    }

    fn attn_v(&mut self) -> Option<Choice> {
        let (i, grouped) = (self.i_attn_v, self.gqa() >= 4);
        self.i_attn_v += 1;
        let mut chosen = match self.file.ftype {
            ftype::Q2_K | ftype::Q2_K_S | ftype::IQ3_XXS | ftype::IQ3_XS | ftype::IQ3_S if grouped => Some((ggml::Q4_K, GROUPED)),
            ftype::Q2_K => Some((ggml::Q3_K, "values: more bits")),
            ftype::IQ3_XXS if self.context.imatrix => Some((ggml::IQ3_XXS, FILE_TYPE)),
            ftype::IQ3_XXS => Some((ggml::IQ3_S, "values, without an importance matrix: more bits")),
            ftype::IQ3_M => Some((ggml::Q4_K, "values: more bits")),
            ftype::Q3_K_M if i < 2 => Some((ggml::Q5_K, "values of the first 2 layers: more bits")),
            ftype::Q3_K_M => Some((ggml::Q4_K, "values: more bits")),
            ftype::Q3_K_L => Some((ggml::Q5_K, "values: more bits")),
            ftype::IQ4_NL | ftype::IQ4_XS if grouped => Some((ggml::Q5_K, GROUPED)),
            ftype::Q4_K_M | ftype::Q5_K_M if more_bits(i, self.n_attn_v) => Some((ggml::Q6_K, OUTER_AND_EVERY_THIRD)),
            ftype::Q4_K_S if i < 4 => Some((ggml::Q5_K, "values of the first 4 layers: more bits")),
            _ => None,
        };
        let id = chosen.map_or(self.file.format.ggml_id, |(id, _)| id);
        if self.is_70b() && matches!(id, ggml::Q3_K | ggml::Q4_K) {
            chosen = Some((ggml::Q5_K, "values of a 70B model: more bits"));
        }
        if self.context.inputs.n_expert == 8 {
            chosen = Some((ggml::Q8_0, "values of a model of 8 experts: Q8_0"));
        }
        chosen
    }

    fn attn_k_or_q(&self, category: Category) -> Option<Choice> {
        match self.file.ftype {
            _ if category == Category::AttnK && self.context.inputs.n_expert == 8 => {
                Some((ggml::Q8_0, "keys of a model of 8 experts: Q8_0"))
            }
            ftype::IQ3_XS => Some((ggml::IQ3_XXS, "queries and keys: fewer bits")),
            ftype::IQ3_XXS => Some((ggml::IQ2_S, "queries and keys: fewer bits")),
            _ => None,
        }
    }

    fn ffn_down(&mut self, tensor: &QuantizeTensor<'_>) -> Result<Option<Choice>, RecipeError> {
        let (i, n) = (self.layer(self.i_ffn_down, tensor)?, self.n_layer());
        self.i_ffn_down += 1;
        let (falcon, imatrix) = (self.is_falcon(), self.context.imatrix);
        let eight_experts = self.context.inputs.n_expert == 8;
        Ok(match self.file.ftype {
            ftype::Q2_K => Some((ggml::Q3_K, "ffn_down: more bits")),
            ftype::Q2_K_S if i < n / 8 => Some((ggml::Q4_K, FIRST_EIGHTH)),
            ftype::IQ3_XXS if !imatrix && i < n / 8 => Some((ggml::Q4_K, FIRST_EIGHTH)),
            ftype::IQ3_XXS if !imatrix => Some((ggml::Q3_K, "ffn_down, without an importance matrix: more bits")),
            ftype::Q3_K_M if i < n / 16 => Some((ggml::Q5_K, "first sixteenth of the layers: more bits")),
            ftype::Q3_K_M if !falcon => Some((ggml::Q4_K, "ffn_down: more bits")),
            ftype::Q3_K_M if more_bits(i, n) => Some((ggml::Q4_K, OUTER_AND_EVERY_THIRD)),
            ftype::IQ3_M if i < n / 8 => Some((ggml::Q4_K, FIRST_EIGHTH)),
            ftype::IQ3_M if eight_experts && more_bits(i, n) => Some((ggml::Q4_K, OUTER_AND_EVERY_THIRD)),
            ftype::Q3_K_L => Some((if falcon { ggml::Q4_K } else { ggml::Q5_K }, "ffn_down: more bits")),
            ftype::Q4_K_M if falcon && i < n / 16 => Some((ggml::Q6_K, "first sixteenth of the layers: more bits")),
            ftype::Q4_K_M if falcon && more_bits(i, n) => Some((ggml::Q5_K, OUTER_AND_EVERY_THIRD)),
            ftype::Q4_K_M | ftype::Q5_K_M if (!falcon || self.file.ftype == ftype::Q5_K_M) && more_bits(i, n) => {
                Some((ggml::Q6_K, OUTER_AND_EVERY_THIRD))
            }
            ftype::IQ4_NL | ftype::IQ4_XS if !imatrix && i < n / 8 => Some((ggml::Q5_K, FIRST_EIGHTH)),
            ftype::Q4_K_S if !falcon && i < n / 8 => Some((ggml::Q5_K, FIRST_EIGHTH)),
            ftype::Q4_0 if imatrix && i < n / 8 => Some((ggml::Q4_1, "first eighth of the layers, with importance: an offset")),
            ftype::Q5_0 if imatrix && i < n / 8 => Some((ggml::Q5_1, "first eighth of the layers, with importance: an offset")),
            _ => None,
        })
    }

    fn attn_output(&self) -> Option<Choice> {
        let file = self.file.ftype;
        if self.is_falcon() {
            return (file == ftype::Q3_K_L).then_some((ggml::Q4_K, "attention output: more bits"));
        }
        if self.context.inputs.n_expert == 8 {
            let listed = matches!(
                file,
                ftype::Q2_K
                    | ftype::IQ3_XS
                    | ftype::IQ3_XXS
                    | ftype::Q3_K_S
                    | ftype::Q3_K_M
                    | ftype::IQ4_NL
                    | ftype::Q4_K_S
                    | ftype::Q4_K_M
                    | ftype::IQ3_S
                    | ftype::IQ3_M
                    | ftype::IQ4_XS
            );
            return listed.then_some((ggml::Q5_K, EIGHT_EXPERTS));
        }
        let id = match file {
            ftype::Q2_K => ggml::Q3_K,
            ftype::IQ3_XXS => ggml::IQ3_S,
            ftype::Q3_K_M | ftype::IQ3_M => ggml::Q4_K,
            ftype::Q3_K_L => ggml::Q5_K,
            _ => return None,
        };
        Some((id, "attention output: more bits"))
    }

    fn ffn_gate_or_up(&mut self, category: Category, tensor: &QuantizeTensor<'_>) -> Result<Option<Choice>, RecipeError> {
        let counter = if category == Category::FfnGate { self.i_ffn_gate } else { self.i_ffn_up };
        let (i, n) = (self.layer(counter, tensor)?, self.n_layer());
        match category {
            Category::FfnGate => self.i_ffn_gate += 1,
            _ => self.i_ffn_up += 1,
        }
        let middle = self.file.ftype == ftype::IQ3_XS && i >= n / 8 && i < 7 * n / 8;
        Ok(middle.then_some((ggml::IQ3_XXS, "all but the first and last eighth of the layers: fewer bits")))
    }

    /// The layer that a feed-forward tensor counts as: the walk's counter, or with experts the number in its name.
    fn layer(&self, counter: i64, tensor: &QuantizeTensor<'_>) -> Result<i64, RecipeError> {
        if self.context.inputs.n_expert <= 1 {
            return Ok(counter);
        }
        let number = tensor.name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse().ok());
        number
            .filter(|layer| (0..self.n_layer()).contains(layer))
            .ok_or_else(|| RecipeError::Layer { tensor: tensor.name.to_owned(), layers: self.context.inputs.n_layer })
    }

    fn n_layer(&self) -> i64 {
        i64::from(self.context.inputs.n_layer)
    }

    /// Query heads per key-value head.
    fn gqa(&self) -> u32 {
        self.context.inputs.n_head.checked_div(self.context.inputs.n_head_kv).unwrap_or(0)
    }

    fn is_falcon(&self) -> bool {
        self.context.arch == "falcon"
    }

    /// What llama.cpp calls a 70B model, by architecture and number of layers.
    fn is_70b(&self) -> bool {
        let inputs = &self.context.inputs;
        match self.context.arch {
            "llama" | "llama-embed" => inputs.n_layer == 80 && inputs.n_head != inputs.n_head_kv && inputs.n_expert != 8,
            "qwen2" | "deci" | "olmo" => inputs.n_layer == 80,
            "jais2" => inputs.n_layer == 68,
            _ => false,
        }
    }
}

/// `use_more_bits`.
fn more_bits(i: i64, n: i64) -> bool {
    i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2
}
