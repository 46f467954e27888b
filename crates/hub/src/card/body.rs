//! Our part of a card.

use super::text::{code, inline, measured, shell, size};
use super::{Card, CardFile, Figures, Verdict};
use crate::names::FileName;
use std::fmt::Write;

/// Files of fewer bits per weight are not proposed first, nor those further from their source in nats, where that was measured.
const GOOD_BITS: f64 = 4.5;
const NEAR: f64 = 0.1;

pub(super) fn ours(card: &Card) -> String {
    let mut out = String::new();
    introduction(&mut out, card);
    warnings(&mut out, card);
    table(&mut out, card);
    figures(&mut out, card);
    how_to_run(&mut out, card);
    how_it_was_made(&mut out, card);
    hashes(&mut out, card);
    out.trim_end().to_owned() + "\n"
}

macro_rules! put {
    ($out:expr, $($arguments:tt)*) => {
        // Writing into a String does not fail.
        let _ = writeln!($out, $($arguments)*);
    };
}

fn introduction(out: &mut String, card: &Card) {
    let source = match &card.base_model {
        Some(base) => format!("[{}]({}/{base})", inline(base), card.endpoint),
        None => inline(&card.source),
    };
    let (commit, page) = match (&card.base_model, &card.revision) {
        (Some(base), Some(commit)) => {
            (format!(", commit [`{}`]({}/{base}/tree/{commit})", short(commit), card.endpoint), Some(base))
        }
        (None, Some(commit)) => (format!(", commit `{}`", short(commit)), None),
        (base, None) => (String::new(), base.as_ref()),
    };
    put!(out, "GGUF files of {source}{commit}, for llama.cpp and what builds on it.");
    if let Some(base) = page {
        put!(
            out,
            "What the model is, how it was trained and what it may be used for: [the original model card]({}/{base}).",
            card.endpoint
        );
    }
    put!(out, "");
}

fn short(commit: &str) -> String {
    code(commit).chars().filter(char::is_ascii_alphanumeric).take(12).collect()
}

fn warnings(out: &mut String, card: &Card) {
    let names = |verdict: Verdict| {
        let files = card.files.iter().filter(|file| file.verdict == verdict);
        files.map(|file| inline(file.name())).collect::<Vec<_>>().join(", ")
    };
    for (verdict, what) in [
        (Verdict::NotVerified, "**Not verified**: nobody has shown that these files are the model that they say they are"),
        (Verdict::NotFaithful, "**Not faithful**: a check or a threshold failed, see the report"),
    ] {
        let names = names(verdict);
        if !names.is_empty() {
            put!(out, "> {what}: {names}\n");
        }
    }
}

fn table(out: &mut String, card: &Card) {
    put!(out, "## Files\n");
    put!(out, "| File | Type | Size | Bits per weight | Perplexity | KL divergence (nats) | Same top-1 | Verdict |");
    put!(out, "|---|---|--:|--:|--:|--:|--:|---|");
    for file in &card.files {
        let none = || "–".to_owned();
        let measure = |get: &dyn Fn(&Figures) -> String| file.figures.as_ref().map_or_else(none, get);
        let parts = if file.shards.len() > 1 { format!(" ({} shards)", file.shards.len()) } else { String::new() };
        put!(
            out,
            "| {}{parts} | {} | {} | {} | {} | {} | {} | {} |",
            link(file.name(), file.name()),
            if file.file_type.is_empty() { none() } else { inline(&file.file_type) },
            size(file.bytes()),
            file.bits_per_weight.map_or_else(none, |bits| format!("{bits:.2}")),
            measure(&|figures| measured(figures.perplexity)),
            measure(&|figures| measured(figures.kld)),
            measure(&|figures| percent(figures.same_top1)),
            verdict(file),
        );
    }
    put!(out, "");
}

fn verdict(file: &CardFile) -> String {
    let word = match file.verdict {
        Verdict::Faithful => "faithful",
        Verdict::NotFaithful => "**not faithful**",
        Verdict::NotVerified => "not verified",
    };
    match &file.report {
        Some(report) => link(report, word),
        None => word.to_owned(),
    }
}

/// A link to a file of the repository, where its name can be one.
fn link(name: &str, words: &str) -> String {
    let words = if words == name { inline(words) } else { words.to_owned() };
    match name.parse::<FileName>() {
        Ok(name) => format!("[{words}](./{})", name.encoded()),
        Err(_) => words,
    }
}

fn percent((share, error): (f64, f64)) -> String {
    format!("{}\u{a0}%", measured((share * 100.0, error * 100.0)))
}

fn figures(out: &mut String, card: &Card) {
    let measured_files: Vec<&Figures> = card.files.iter().filter_map(|file| file.figures.as_ref()).collect();
    let Some(first) = measured_files.first() else { return };
    let same = measured_files.iter().all(|f| (f.windows, f.n_ctx, &f.text) == (first.windows, first.n_ctx, &first.text));
    if same {
        put!(
            out,
            "Measured against the source's own weights in F32, {} of {} tokens of {}. The source's perplexity there is {}.\n",
            windows(first.windows),
            first.n_ctx,
            inline(&first.text),
            measured(first.perplexity_source)
        );
    } else {
        put!(out, "Measured against the source's own weights in F32; over which text, the reports say.\n");
    }
    put!(
        out,
        "*Faithful*: structure, every tensor, tokenizer and forward pass were checked against the source, and all passed. \
         KL divergence: how far the distribution of the next token is from the source's, 0 where it is the same. \
         Same top-1: how often the most probable token is the same one. ± is one standard error.\n"
    );
    if let Some(plot) = card.plot.as_deref().and_then(|name| name.parse::<FileName>().ok()) {
        put!(out, "![Share of positions by their KL divergence, file by file](./{})\n", plot.encoded());
    }
}

fn windows(count: u64) -> String {
    if count == 1 { "1 window".to_owned() } else { format!("{count} windows") }
}

fn how_to_run(out: &mut String, card: &Card) {
    let Some(file) = proposed(card) else { return };
    let repo = code(&card.repo);
    // llama.cpp and Ollama find a file by a tag in its name.
    let alone = card.files.iter().filter(|other| has_tag(other.name(), &file.file_type)).count() == 1;
    let tagged = !file.file_type.is_empty() && has_tag(file.name(), &file.file_type) && alone;
    let (tag, named) = match tagged {
        true => (format!(":{}", code(&file.file_type)), String::new()),
        false => (String::new(), format!(" --hf-file {}", code(&shell(file.name())))),
    };
    put!(out, "## How to run\n");
    put!(out, "[llama.cpp](https://github.com/ggml-org/llama.cpp): a chat in the browser at http://localhost:8080, and an API\n");
    put!(out, "```sh\nllama-server -hf {repo}{tag}{named}\n```\n");
    put!(out, "[Ollama](https://ollama.com)\n\n```sh\nollama run hf.co/{repo}{tag}\n```\n");
    put!(
        out,
        "[LM Studio](https://lmstudio.ai): search for `{repo}`, or\n\n```sh\nlms get {}/{repo}\n```\n",
        code(&card.endpoint)
    );
}

/// The smallest file that is verified, of enough bits and near its source; or the largest one.
fn proposed(card: &Card) -> Option<&CardFile> {
    let near = |file: &CardFile| file.figures.as_ref().is_none_or(|figures| figures.kld.0 <= NEAR);
    let good = |file: &&CardFile| {
        file.verdict == Verdict::Faithful && file.bits_per_weight.is_some_and(|bits| bits >= GOOD_BITS) && near(file)
    };
    let best = card.files.iter().filter(good).min_by_key(|file| file.bytes());
    best.or_else(|| card.files.iter().max_by_key(|file| file.bytes()))
}

/// Whether a name holds a type between `-` or `.`.
fn has_tag(name: &str, tag: &str) -> bool {
    name.split(['-', '.']).any(|part| part.eq_ignore_ascii_case(tag))
}

fn how_it_was_made(out: &mut String, card: &Card) {
    if card.tools.is_empty() && card.commands.is_empty() {
        return;
    }
    put!(out, "## How it was made\n");
    let tools = card.tools.iter().map(|tool| inline(tool)).collect::<Vec<_>>().join(", ");
    let reference = card.reference.as_ref().map(|reference| format!("; the bytes are those of {}", inline(reference)));
    put!(out, "With {tools}{}.", reference.unwrap_or_default());
    if let Some(imatrix) = &card.imatrix {
        put!(out, "Importance matrix: {}.", inline(imatrix));
    }
    if !card.commands.is_empty() {
        put!(out, "\n```sh");
        for command in &card.commands {
            let words: Vec<_> = command.iter().map(|argument| shell(argument)).collect();
            put!(out, "ggufsmith {}", code(&words.join(" ")));
        }
        put!(out, "```");
    }
    put!(out, "");
}

fn hashes(out: &mut String, card: &Card) {
    put!(out, "## SHA-256\n\n`sha256sum -c` reads these lines.\n\n```text");
    for (name, _, sha256) in card.files.iter().flat_map(|file| &file.shards) {
        put!(out, "{}  {}", code(sha256), code(name));
    }
    put!(out, "```");
}
