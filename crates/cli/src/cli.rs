//! From arguments to an exit code.

use crate::commands::Command;
use crate::failure::Failure;
use crate::{output, panics};
use clap::{CommandFactory, FromArgMatches, Parser};
use ggufsmith_convert::ConvertError;
use ggufsmith_convert::pipeline::PipelineError;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::LazyLock;

/// The run did what was asked.
const FINE: u8 = 0;
/// The run could not do what was asked.
const COULD_NOT_RUN: u8 = 2;
/// The run was interrupted: 128 + SIGINT, as shells report it.
pub const INTERRUPTED: u8 = 130;

/// Turn a Hugging Face model into llama.cpp GGUF files, byte for byte those of llama.cpp's own tools.
#[derive(Debug, Parser)]
#[command(
    name = "ggufsmith",
    version,
    long_version = LONG_VERSION.as_str(),
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 110,
    after_help = include_str!("help.txt")
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Names the tools whose bytes are written: they decide whether two files can be compared.
static LONG_VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{}\nreference: {}", env!("CARGO_PKG_VERSION"), ggufsmith_convert::REFERENCE));

/// Run the process's arguments.
pub fn run() -> ExitCode {
    panics::record();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let code = panics::guard(|| run_arguments(&arguments)).unwrap_or_else(|| {
        output::error("a fault of ggufsmith, not of its input", Some(&advice_on_panic()));
        COULD_NOT_RUN
    });
    ExitCode::from(code)
}

fn run_arguments(arguments: &[OsString]) -> u8 {
    let parsed = Cli::command().try_get_matches_from(arguments).and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    let command = match parsed {
        Ok(cli) => cli.command,
        Err(error) => return refuse(&error, arguments),
    };
    let json = command.json();
    match command.run() {
        Ok(()) => FINE,
        Err(failure) => report(&failure, json),
    }
}

/// Help, version, or what is wrong with the arguments.
fn refuse(error: &clap::Error, arguments: &[OsString]) -> u8 {
    let printed = error.print().and_then(|()| std::io::stdout().flush());
    if !error.use_stderr() {
        return printed.map_or_else(|error| report(&Failure::stdout(error), false), |()| FINE);
    }
    // Where standard error cannot be written, the exit code still tells.
    if arguments.iter().any(|argument| argument == "--json") {
        let _ = output::json(&serde_json::json!({ "error": argument_error(&error.to_string()) }));
    }
    COULD_NOT_RUN
}

/// What to do about a panic.
fn advice_on_panic() -> String {
    let last = panics::last().unwrap_or_else(|| "it panicked".to_owned());
    format!("{last}; report it with the command at {}/issues (RUST_BACKTRACE=1 says more)", env!("CARGO_PKG_REPOSITORY"))
}

/// What is wrong with the arguments on one line, without usage and advice.
fn argument_error(text: &str) -> String {
    let text = text.split("\n\n").next().unwrap_or_default();
    text.strip_prefix("error: ").unwrap_or(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Say why a command failed; the exit code.
fn report(failure: &Failure, json: bool) -> u8 {
    let (message, hint, code) = match failure {
        // Whoever closed the pipe has read what they wanted.
        Failure::BrokenPipe => return FINE,
        Failure::Verdict { code, problems } => {
            problems.iter().for_each(|problem| output::error(problem, None));
            return *code;
        }
        Failure::Interrupted => ("interrupted: no file was written".to_owned(), None, INTERRUPTED),
        Failure::Error { error, hint } => {
            let panicked = matches!(error.downcast_ref(), Some(ConvertError::Pipeline(PipelineError::WorkerPanicked)));
            let hint = if panicked { Some(advice_on_panic()) } else { hint.clone() };
            (crate::failure::chain(error), hint, COULD_NOT_RUN)
        }
    };
    output::error(&message, hint.as_deref());
    if json {
        let mut object = serde_json::json!({ "error": message });
        if let Some(hint) = hint {
            object["hint"] = hint.into();
        }
        let _ = output::json(&object);
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every line of every help text's examples is a command line that is understood.
    #[test]
    fn examples_in_help_texts_parse() {
        let mut root = Cli::command();
        root.build();
        let mut checked = 0;
        for command in std::iter::once(&root).chain(root.get_subcommands()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter_map(|line| line.trim().strip_prefix("$ ggufsmith")) {
                let line = line.split('#').next().unwrap_or_default();
                let arguments = std::iter::once("ggufsmith").chain(line.split_whitespace().map(|word| word.trim_matches('\'')));
                Cli::try_parse_from(arguments).unwrap_or_else(|e| panic!("{line}: {e}"));
                checked += 1;
            }
        }
        assert!(checked >= 5, "{checked} examples");
    }

    #[test]
    fn argument_errors_become_one_line() {
        let error = Cli::try_parse_from(["ggufsmith", "inspect", "--json"]).unwrap_err().to_string();
        assert_eq!(argument_error(&error), "the following required arguments were not provided: <PATH>");
    }

    #[test]
    fn every_flag_has_a_help_text() {
        let mut root = Cli::command();
        root.build();
        for command in root.get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
        }
    }
}
