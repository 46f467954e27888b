//! The steps of a push.

use super::files::{self, Group};
use super::{Arguments, card};
use crate::failure::Failure;
use crate::hub::{client, failure, pasted};
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::{output, units};
use ggufsmith_hub::card::{Verdict, check_existing, divergences};
use ggufsmith_hub::{Client, FileName, Hash, HubError, Local, Published, RepoId, Revision, State, UploadWatch, Wish};
use serde_json::{Value, json};
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// A push that can begin: repository and token are known to be right.
pub struct Push {
    client: Client,
    shows: bool,
    repo: RepoId,
    revision: Revision,
    user: String,
}

/// What is sent.
struct Upload {
    files: Vec<Local>,
    card: String,
}

impl Push {
    /// Look whether repository, token and wishes are right; ask the user. Nothing is sent yet, nothing is read.
    pub fn begin(arguments: &Arguments, interrupt: &Interrupt) -> Result<Push, Failure> {
        let repo: RepoId = pasted(&arguments.repo).parse().map_err(failure)?;
        let revision = arguments.options.revision.as_deref().map_or_else(|| Ok(Revision::main()), str::parse).map_err(failure)?;
        if revision.is_commit() {
            return Err(Failure::new(format!("--revision {revision}: a commit takes no other commit; name a branch")));
        }
        if arguments.options.message.as_deref().is_some_and(|message| message.trim().is_empty()) {
            return Err(Failure::new("--message is empty"));
        }
        if let Some(base) = &arguments.options.base_model {
            base.parse::<RepoId>().map_err(failure)?;
        }
        let (client, shows) = client(interrupt, arguments.quiet)?;
        if client.settings().offline {
            return Err(Failure::new("the Hub is not to be asked (HF_HUB_OFFLINE), and publishing means asking it"));
        }
        if !arguments.dry_run && !arguments.options.yes && !io::stdin().is_terminal() {
            return Err(Failure::new(format!("publishing to {repo} wants a yes, and nobody can be asked here")).hint("add --yes"));
        }
        if !arguments.dry_run && client.settings().token.is_none() {
            let advice = "`hf auth login`, or set HF_TOKEN to a token with write access (https://huggingface.co/settings/tokens)";
            return Err(Failure::new("publishing wants an access token, and there is none").hint(advice));
        }
        // A dry run shows what can be shown without an account.
        let anonymous = arguments.dry_run && client.settings().token.is_none();
        let user = match anonymous {
            true => repo.owner().to_owned(),
            false => {
                let account = client.account().map_err(failure)?;
                if account.reads_only && !arguments.dry_run {
                    let advice = "make one with the role write at https://huggingface.co/settings/tokens";
                    return Err(Failure::new("the token may read, not write").hint(advice));
                }
                account.name
            }
        };
        Ok(Push { client, shows, repo, revision, user })
    }

    /// Publish, and tell; what there is to tell in JSON is returned where JSON is wanted.
    pub fn finish(&self, arguments: &Arguments, interrupt: &Interrupt) -> Result<Option<Value>, Failure> {
        let groups = files::gather(arguments, self.client.cancel(), self.shows)?;
        refuse(&groups, arguments)?;
        interrupt.check()?;
        let (state, new_branch) = match self.client.state(&self.repo, &self.revision) {
            // The branch is made where the repository has none of that name, as `hf upload` does.
            Err(HubError::RevisionNotFound { .. }) => (self.client.state(&self.repo, &Revision::main()).map_err(failure)?, true),
            // Without an account a repository that is missing looks like a private one.
            Err(HubError::NoToken { .. }) if arguments.dry_run => (None, false),
            state => (state.map_err(failure)?, false),
        };
        if arguments.options.private && state.as_ref().is_some_and(|state| state.private == Some(false)) {
            let message = format!("{} exists and is public: --private is for a new repository", self.repo);
            return Err(Failure::new(message).hint("make it private on its settings page first, or leave --private out"));
        }
        let upload = self.upload(arguments, &groups, state.as_ref())?;
        if arguments.dry_run {
            return self.show(arguments, &groups, &upload, state.is_some());
        }
        if !arguments.options.yes && !self.confirmed(&upload, state.as_ref(), arguments.options.private)? {
            return Err(Failure::new("nothing was published"));
        }
        let names: Vec<&str> = groups.iter().map(Group::name).collect();
        let wish = Wish {
            repo: self.repo.clone(),
            revision: self.revision.clone(),
            private: arguments.options.private,
            new_branch: new_branch && state.is_some(),
            create_pr: arguments.options.create_pr,
            removed: state.as_ref().map(|state| stale(state, &groups, &upload.files)).unwrap_or_default(),
            summary: arguments.options.message.clone().unwrap_or_else(|| summary(&names)),
        };
        let shown = Arc::new(Shown { quiet: arguments.quiet, shows: self.shows, started: Instant::now(), progress: OnceLock::new() });
        let watch: Arc<dyn UploadWatch> = shown.clone();
        let published = self.client.publish(&wish, &upload.files, state.as_ref(), &watch);
        shown.end(published.as_ref().map_or(0, |published| published.sent));
        self.tell(arguments, &groups, &published.map_err(failure)?)
    }

    /// All files: GGUF files, what lies beside them, card and plot.
    fn upload(&self, arguments: &Arguments, groups: &[Group], state: Option<&State>) -> Result<Upload, Failure> {
        let others = state.map(|state| card::others(&self.client, &self.repo, state, groups)).transpose()?.unwrap_or_default();
        let mut content = card::card(&self.repo, &self.client, &self.user, groups, others);
        if let Some(base) = &arguments.options.base_model {
            if let Some(known) = content.base_model.as_ref().filter(|known| *known != base) {
                output::warning(&format!("--base-model {base}: the manifests say that the files were made from {known}"));
            }
            // The commit is one of the manifest's repository.
            content.revision = content.revision.take().filter(|_| content.base_model.as_ref().is_none_or(|known| known == base));
            content.base_model = Some(base.clone());
        }
        content.source_card = match &arguments.source_card {
            Some(path) => Some(read_card(path)?),
            None => card::of_source(&self.client, &content)?,
        };
        let plot = divergences(&content.files);
        content.plot = plot.is_some().then(|| card::PLOT.to_owned());
        let old = state.map(|state| card::existing(&self.client, &self.repo, state)).transpose()?.flatten();
        if let Some(what) = old.as_deref().and_then(|old| check_existing(old).err()) {
            let message = format!("the {} of {}: {what}", card::CARD, self.repo);
            return Err(Failure::new(message).hint("repair it on the Hub, then push again: everything else of it is kept"));
        }
        let text = content.render(old.as_deref());
        let mut files: Vec<Local> = Vec::new();
        for group in groups {
            files.extend(group.shards.iter().cloned());
            for path in &group.beside {
                let name: FileName = path.file_name().unwrap_or_default().to_string_lossy().parse().map_err(failure)?;
                files.push(Local::of_file(name, path, self.client.cancel(), &|_| {}).map_err(failure)?);
            }
        }
        let small = |name: &str, text: &str| name.parse().map(|name| Local::of_bytes(name, text.as_bytes().to_vec()));
        if let Some(plot) = &plot {
            files.push(small(card::PLOT, plot).map_err(failure)?);
        }
        files.push(small(card::CARD, &text).map_err(failure)?);
        Ok(Upload { files, card: text })
    }

    fn show(&self, arguments: &Arguments, groups: &[Group], upload: &Upload, exists: bool) -> Result<Option<Value>, Failure> {
        if arguments.json {
            let files = upload.files.iter().map(|file| json!({ "name": file.name.as_str(), "bytes": file.size, "sha256": file.sha256 }));
            return Ok(Some(json!({
                "repo": self.repo.as_str(), "revision": self.revision.as_str(), "exists": exists, "dry_run": true,
                "models": models(groups), "upload": files.collect::<Vec<_>>(), "card": upload.card
            })));
        }
        let what = if exists { "" } else { ", which would be created" };
        let mut text = format!("would publish in {}@{}{what}:\n", self.repo, self.revision);
        for file in &upload.files {
            text.push_str(&format!("  {}  {}\n", file.name, units::bytes(file.size)));
        }
        text.push_str(&format!("\n{}:\n\n{}", card::CARD, upload.card));
        output::data(&text).map(|()| None)
    }

    /// Ask before there is anything to publish.
    pub fn ask_beforehand(&self, private: bool) -> Result<(), Failure> {
        let state = match self.client.state(&self.repo, &self.revision) {
            Err(HubError::RevisionNotFound { .. }) => self.client.state(&self.repo, &Revision::main()).map_err(failure)?,
            state => state.map_err(failure)?,
        };
        let what = visibility(state.as_ref(), private);
        match asked(&format!("Publish in {}{what} what is faithful at the end?", self.repo))? {
            true => Ok(()),
            false => Err(Failure::new("nothing was converted")),
        }
    }

    /// Ask on the terminal.
    fn confirmed(&self, upload: &Upload, state: Option<&State>, private: bool) -> Result<bool, Failure> {
        let bytes = upload.files.iter().map(|file| file.size).sum();
        let count = units::plural(upload.files.len(), "file");
        asked(&format!("Publish {count}, {}, in {}{}?", units::bytes(bytes), self.repo, visibility(state, private)))
    }

    fn tell(&self, arguments: &Arguments, groups: &[Group], published: &Published) -> Result<Option<Value>, Failure> {
        if arguments.json {
            return Ok(Some(json!({
                "repo": self.repo.as_str(), "revision": self.revision.as_str(), "commit": published.commit, "url": published.url,
                "changed": published.changed, "files": published.files, "sent": published.sent, "models": models(groups)
            })));
        }
        if arguments.quiet {
            return Ok(None);
        }
        if !published.changed {
            output::note(&format!("{} has all of it already", self.repo));
        }
        output::data(&format!("{}\n", output::printable(&published.url))).map(|()| None)
    }
}

/// Who sees the repository, or will.
fn visibility(state: Option<&State>, private: bool) -> &'static str {
    match (state.map(|state| state.private), private) {
        (Some(Some(true)), _) => " (private)",
        (Some(Some(false)), _) => " (public)",
        (Some(None), _) => "",
        (None, true) => " (new, private)",
        (None, false) => " (new, public)",
    }
}

/// A yes, on the terminal.
fn asked(question: &str) -> Result<bool, Failure> {
    let mut stderr = io::stderr();
    let asked = write!(stderr, "{question} [y/N] ");
    asked.and_then(|()| stderr.flush())?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// What the repository has beside GGUF files that this push replaces, and the push has not: it is about other bytes.
fn stale(state: &State, groups: &[Group], files: &[Local]) -> Vec<FileName> {
    const BESIDE: [&str; 4] = [".report.json", ".report.md", ".report.html", ".manifest.json"];
    let stays = |name: &str| files.iter().any(|file| file.name.as_str() == name);
    let sent = |name: &str| groups.iter().flat_map(|group| &group.shards).find(|shard| shard.name.as_str() == name);
    let replaced = |name: &str| {
        let sha256 = |hash: &Hash| matches!(hash, Hash::Sha256(_)).then(|| hash.hex().to_owned());
        let there = state.find(name).and_then(|entry| sha256(&entry.hash));
        sent(name).is_some_and(|shard| there.is_some_and(|there| there != shard.sha256))
    };
    let is_stale = |name: &str| {
        let of = BESIDE.iter().find_map(|end| name.strip_suffix(end));
        of.is_some_and(|gguf| gguf.ends_with(".gguf") && replaced(gguf)) && !stays(name)
    };
    state.files.iter().filter(|entry| is_stale(entry.name.as_str())).map(|entry| entry.name.clone()).collect()
}

/// Files that are not what they should be are not published.
fn refuse(groups: &[Group], arguments: &Arguments) -> Result<(), Failure> {
    let bad = groups.iter().filter_map(|group| group.problem.as_ref().map(|problem| (group, problem)));
    let mut problems: Vec<String> = bad.map(|(group, problem)| format!("{}: {problem}", group.name())).collect();
    if problems.is_empty() {
        return Ok(());
    }
    if arguments.allow_unverified {
        let what = if arguments.dry_run { "it would be published all the same" } else { "published all the same" };
        problems.iter().for_each(|problem| output::warning(&format!("{problem}; {what}")));
        return Ok(());
    }
    problems.push("nothing was published: `ggufsmith verify FILE.gguf --against SOURCE` writes a report".to_owned());
    Err(Failure::Verdict { code: 1, problems })
}

fn models(groups: &[Group]) -> Value {
    let verdict = |verdict: Verdict| match verdict {
        Verdict::Faithful => "faithful",
        Verdict::NotFaithful => "not faithful",
        Verdict::NotVerified => "not verified",
    };
    let model = |group: &Group| {
        let files = group.shards.iter().map(|s| json!({ "name": s.name.as_str(), "bytes": s.size, "sha256": s.sha256 }));
        json!({ "verdict": verdict(group.verdict), "files": files.collect::<Vec<_>>() })
    };
    groups.iter().map(model).collect()
}

fn summary(names: &[&str]) -> String {
    match names {
        [one] => format!("Upload {one}"),
        [first, rest @ ..] => format!("Upload {first} and {}", units::plural(rest.len(), "other model file")),
        [] => "Upload files".to_owned(),
    }
}

fn read_card(path: &PathBuf) -> Result<String, Failure> {
    let wrong = |what: &dyn std::fmt::Display| Failure::new(format!("--source-card {}: {what}", path.display()));
    match path.metadata() {
        Ok(metadata) if metadata.len() > card::CARD_BYTES => Err(wrong(&"it is too large for a model card")),
        _ => std::fs::read_to_string(path).map_err(|error| wrong(&error)),
    }
}

/// Shows an upload.
struct Shown {
    quiet: bool,
    shows: bool,
    started: Instant,
    progress: OnceLock<Progress>,
}

impl Shown {
    fn end(&self, sent: u64) {
        let Some(progress) = self.progress.get() else { return };
        progress.end();
        if !self.quiet && sent > 0 {
            let elapsed = self.started.elapsed();
            let (sent, rate) = (units::bytes(sent), units::rate(sent, elapsed));
            output::note(&format!("{sent} uploaded in {}, {rate}", units::duration(elapsed)));
        }
    }
}

impl UploadWatch for Shown {
    fn begin(&self, files: usize, bytes: u64, there: u64) {
        let (count, missing) = (units::plural(files, "large file"), bytes.saturating_sub(there));
        if !self.quiet {
            let there = if there > 0 { format!(", {} of it is there already", units::bytes(there)) } else { String::new() };
            output::note(&format!("uploading {count}, {}{there}", units::bytes(bytes)));
        }
        // It begins once, but for more files than are asked about at once.
        let _ = self.progress.set(Progress::new(missing, !self.shows));
    }

    fn advance(&self, bytes: u64) {
        if let Some(progress) = self.progress.get() {
            progress.add(bytes);
        }
    }
}
