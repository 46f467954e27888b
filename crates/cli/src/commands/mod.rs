//! One file per command; a command is one line of `commands!`.

use crate::failure::Failure;
use clap::Subcommand;
use std::path::Path;

macro_rules! commands {
    ($($variant:ident: $module:ident),* $(,)?) => {
        $(mod $module;)*

        /// What to do.
        #[derive(Debug, Subcommand)]
        pub enum Command {
            $(#[allow(missing_docs)] $variant(Box<$module::Arguments>),)*
        }

        impl Command {
            /// Whether standard output is to hold JSON.
            pub fn json(&self) -> bool {
                match self { $(Command::$variant(arguments) => arguments.json,)* }
            }

            /// Do it.
            ///
            /// # Errors
            /// [`Failure`].
            pub fn run(self) -> Result<(), Failure> {
                match self { $(Command::$variant(arguments) => arguments.run(),)* }
            }
        }
    };
}

commands! {
    Convert: convert,
    Devices: devices,
    Export: export,
    Generate: generate,
    Inspect: inspect,
    List: list,
    Perplexity: perplexity,
    Push: push,
    Quantize: quantize,
    Verify: verify,
}

/// The arguments of this run, for manifests and reports.
fn command_line() -> Vec<String> {
    std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect()
}

/// A path that leads nowhere is a slip of the keyboard: said at once, and plainly.
fn check_exists(path: &Path) -> Result<(), Failure> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Failure::new(format!("there is no file or directory {}", path.display())))
        }
        // What else is wrong with it is told where it is opened.
        _ => Ok(()),
    }
}
