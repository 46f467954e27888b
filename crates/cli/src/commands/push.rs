//! `ggufsmith push`.

#[cfg(feature = "hub")]
mod card;
#[cfg(feature = "hub")]
mod files;
#[cfg(feature = "hub")]
mod run;

use crate::failure::Failure;
#[cfg(feature = "hub")]
use crate::interrupt::Interrupt;
use std::path::PathBuf;

/// Publish verified GGUF files on the Hugging Face Hub, with their reports and a model card
#[derive(Debug, clap::Args)]
#[cfg_attr(not(feature = "hub"), allow(dead_code, reason = "without the Hub they are only refused"))]
#[command(after_help = include_str!("push/help.txt"))]
pub struct Arguments {
    /// GGUF files; of a model in shards any one of them stands for all
    #[arg(required = true, value_name = "FILE.gguf")]
    pub(super) files: Vec<PathBuf>,

    /// Repository to publish in, org/name; it is created where it is missing
    #[arg(long, value_name = "ORG/NAME")]
    pub(super) repo: String,

    #[command(flatten)]
    pub(super) options: Options,

    /// Publish files without a passing report, too; the card says that they are not verified
    #[arg(long, help_heading = "Content")]
    pub(super) allow_unverified: bool,

    /// The model's own card, a README.md, for license, language and tags [default: that of --base-model on the Hub]
    #[arg(long, value_name = "FILE", help_heading = "Content")]
    pub(super) source_card: Option<PathBuf>,

    /// Where `verify --report-dir` wrote the reports [default: beside each file]
    #[arg(long, value_name = "DIR", help_heading = "Content")]
    pub(super) report_dir: Option<PathBuf>,

    /// Show what would be published, and the model card; nothing is sent
    #[arg(short = 'n', long, help_heading = "Run")]
    pub(super) dry_run: bool,

    /// Print what was published as JSON on standard output
    #[arg(long, help_heading = "Run")]
    pub json: bool,

    /// Print errors and warnings only
    #[arg(short, long, help_heading = "Run")]
    pub(super) quiet: bool,
}

/// What `convert --push` takes, too.
#[derive(Debug, Clone, Default, clap::Args)]
#[cfg_attr(not(feature = "hub"), allow(dead_code, reason = "without the Hub they are only refused"))]
pub struct Options {
    /// A new repository is seen by its owner only
    #[arg(long, help_heading = "Publish")]
    pub(super) private: bool,

    /// Propose the commit as a pull request
    #[arg(long, help_heading = "Publish")]
    pub(super) create_pr: bool,

    /// Branch to commit to [default: main]
    #[arg(long, value_name = "BRANCH", help_heading = "Publish")]
    pub(super) revision: Option<String>,

    /// The model that the files were made from, org/name [default: what their manifests say]
    #[arg(long, value_name = "ORG/NAME", help_heading = "Publish")]
    pub(super) base_model: Option<String>,

    /// First line of the commit [default: the files' names]
    #[arg(long, value_name = "TEXT", help_heading = "Publish")]
    pub(super) message: Option<String>,

    /// Do not ask
    #[arg(short, long, help_heading = "Publish")]
    pub(super) yes: bool,
}

impl Options {
    /// The first option that was given: without `--push` none means anything to `convert`.
    pub fn given(&self) -> Option<&'static str> {
        let given = [
            (self.private, "--private"),
            (self.create_pr, "--create-pr"),
            (self.revision.is_some(), "--revision"),
            (self.base_model.is_some(), "--base-model"),
            (self.message.is_some(), "--message"),
            (self.yes, "--yes"),
        ];
        given.into_iter().find(|(given, _)| *given).map(|(_, flag)| flag)
    }
}

impl Arguments {
    /// Publish.
    #[cfg(feature = "hub")]
    pub fn run(&self) -> Result<(), Failure> {
        self.files.iter().try_for_each(|file| super::check_exists(file))?;
        let interrupt = Interrupt::listen()?;
        let told = Push::begin(self, &interrupt)?.finish(self, &interrupt);
        match &told {
            Ok(Some(told)) => crate::output::json(told)?,
            Err(Failure::Verdict { problems, .. }) if self.json => {
                crate::output::json(&serde_json::json!({ "published": false, "problems": problems }))?;
            }
            _ => {}
        }
        told.map(drop)
    }

    /// Publish.
    #[cfg(not(feature = "hub"))]
    pub fn run(&self) -> Result<(), Failure> {
        Err(without_hub(&self.repo))
    }
}

#[cfg(feature = "hub")]
pub use run::Push;

/// There is nothing to publish with.
#[cfg(not(feature = "hub"))]
pub fn without_hub(repo: &str) -> Failure {
    Failure::new("this ggufsmith was built without the Hub (feature `hub`)")
        .hint(format!("`hf upload {repo} DIRECTORY` publishes a directory"))
}
