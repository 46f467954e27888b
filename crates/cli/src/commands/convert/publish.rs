//! `--push`: what was converted and verified, published.

use super::{Arguments, push};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use ggufsmith_convert::Conversion;
use serde_json::Value;
use std::path::Path;

/// A push that waits for its files.
pub struct Publication {
    #[cfg(feature = "hub")]
    arguments: push::Arguments,
    #[cfg(feature = "hub")]
    push: push::Push,
}

/// What can be wrong with a push is said before the conversion, which takes its time.
#[cfg(feature = "hub")]
pub fn begin(arguments: &Arguments, repo: &str) -> Result<Publication, Failure> {
    let mut arguments = push::Arguments {
        files: Vec::new(),
        repo: repo.to_owned(),
        options: arguments.publication.clone(),
        allow_unverified: false,
        source_card: None,
        report_dir: arguments.verification.report_dir().map(Path::to_owned),
        dry_run: false,
        json: arguments.json,
        quiet: arguments.quiet,
    };
    let push = push::Push::begin(&arguments, &Interrupt::listen()?)?;
    if !arguments.options.yes {
        // Now, and not when everybody has gone home.
        push.ask_beforehand(arguments.options.private)?;
        arguments.options.yes = true;
    }
    Ok(Publication { arguments, push })
}

#[cfg(not(feature = "hub"))]
pub fn begin(_: &Arguments, repo: &str) -> Result<Publication, Failure> {
    Err(push::without_hub(repo))
}

impl Publication {
    /// Publish.
    #[cfg(feature = "hub")]
    pub fn finish(mut self, conversion: &Conversion, source: &Path, interrupt: &Interrupt) -> Result<Option<Value>, Failure> {
        let first = conversion.plan.outputs.iter().filter_map(|output| output.files.first());
        self.arguments.files = first.map(|file| file.path.clone()).collect();
        self.arguments.source_card = Some(source.join("README.md")).filter(|card| card.is_file());
        self.push.finish(&self.arguments, interrupt)
    }

    #[cfg(not(feature = "hub"))]
    pub fn finish(self, _: &Conversion, _: &Path, _: &Interrupt) -> Result<Option<Value>, Failure> {
        Ok(None)
    }
}
