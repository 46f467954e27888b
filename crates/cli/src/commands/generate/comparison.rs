//! Where two continuations of the same prompt part.

use super::model::TextModel;
use super::run::{Run, decode};
use crate::units;
use serde::Serialize;

/// The best text of one model beside that of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Whether both tokenizers gave the prompt the same ids. If not, ids of the texts are not comparable.
    pub same_prompt_ids: bool,
    /// Tokens that both texts begin with.
    pub same_tokens: usize,
    /// Whether both texts, up to their ends, have the same tokens.
    pub identical: bool,
    /// What each goes on with; none where it ends there.
    pub next: [Option<Next>; 2],
}

/// A token at the parting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Next {
    pub id: u32,
    pub text: String,
}

impl Comparison {
    /// Compare the first texts of two runs.
    pub fn new(models: [&dyn TextModel; 2], runs: [&Run; 2]) -> Self {
        let ids = runs.map(|run| run.texts.first().map_or(&[][..], |text| &text.ids));
        let same_tokens = ids[0].iter().zip(ids[1]).take_while(|(a, b)| a == b).count();
        let next = |side: usize| {
            ids[side].get(same_tokens).map(|&id| Next { id, text: decode(models[side], &[id]) })
        };
        Comparison {
            same_prompt_ids: runs[0].prompt_ids == runs[1].prompt_ids,
            same_tokens,
            identical: ids[0] == ids[1],
            next: [next(0), next(1)],
        }
    }

    /// For people; `names` are the models'.
    pub fn line(&self, names: [&str; 2]) -> String {
        if !self.same_prompt_ids {
            return "the tokenizers differ on the prompt already: the texts cannot be compared token by token".to_owned();
        }
        let same = units::plural(self.same_tokens, "token");
        if self.identical {
            return format!("the same text: {same}");
        }
        let goes_on = |side: usize| match &self.next[side] {
            Some(Next { id, text }) => format!("{} says {text:?} ({id})", names[side]),
            None => format!("{} ends", names[side]),
        };
        format!("the first {same} are the same; then {}, {}", goes_on(0), goes_on(1))
    }
}
