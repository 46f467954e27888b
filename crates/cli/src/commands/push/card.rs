//! What the model card says: from reports, manifests and what the repository holds already.

use super::files::{Group, MANIFEST_BYTES, Manifest, judge};
use crate::failure::Failure;
use crate::hub::failure;
use crate::output;
use ggufsmith_gguf::shard_name;
use ggufsmith_hub::card::{Card, CardFile, Figures};
use ggufsmith_hub::{Client, Hash, HubError, RepoId, State};
use ggufsmith_verify::report::{self, Report};

/// The card's name in a repository.
pub const CARD: &str = "README.md";
/// The plot's.
pub const PLOT: &str = "ggufsmith-kl-divergence.svg";
/// A card has fewer bytes.
pub const CARD_BYTES: u64 = 8 << 20;
/// A report has fewer bytes.
const REPORT_BYTES: u64 = 64 << 20;

/// A file that the repository holds and this push does not.
#[derive(Debug)]
pub struct Other {
    file: CardFile,
    manifest: Option<Manifest>,
}

/// Everything of a card but the source's own card. It is the same whichever files are pushed and whichever were there.
pub fn card(repo: &RepoId, client: &Client, user: &str, groups: &[Group], others: Vec<Other>) -> Card {
    let pushed = groups.iter().map(|group| (group.name().to_owned(), group.manifest.as_ref()));
    let there = others.iter().map(|other| (other.file.name().to_owned(), other.manifest.as_ref()));
    let mut known: Vec<_> = pushed.chain(there).filter_map(|(name, manifest)| Some((name, manifest?))).collect();
    known.sort_by(|a, b| a.0.cmp(&b.0));
    let manifests = || known.iter().map(|(_, manifest)| *manifest);
    // Of files of several commits none is named: each manifest has its own.
    let revisions = once(manifests().filter_map(|manifest| manifest.revision.clone()));
    let revision = if revisions.len() > 1 { None } else { revisions.into_iter().next() };
    let several = once(manifests().map(|manifest| &manifest.revision)).len() > 1;
    let reports = || groups.iter().filter_map(|group| group.report.as_ref());
    let mut files: Vec<CardFile> = groups.iter().map(of_group).chain(others.iter().map(|other| other.file.clone())).collect();
    files.sort_by(|a, b| (a.bytes(), a.name()).cmp(&(b.bytes(), b.name())));
    let source = manifests().map(|manifest| manifest.source.clone());
    let source = source.chain(reports().map(|report| report.source.name.clone())).next();
    let from_reports = reports().find_map(|report| report.source.revision.clone());
    Card {
        repo: repo.to_string(),
        endpoint: client.settings().endpoint.trim_end_matches('/').to_owned(),
        quantized_by: user.to_owned(),
        base_model: manifests().find_map(|manifest| manifest.repository.clone()),
        source: source.unwrap_or_else(|| "a model that is not named".to_owned()),
        revision: revision.or(from_reports.filter(|_| !several)),
        source_card: None,
        tools: once(manifests().map(|manifest| manifest.tool.clone())),
        reference: manifests().find_map(|manifest| manifest.reference.clone()),
        commands: once(manifests().map(|manifest| manifest.command.clone())),
        imatrix: manifests().find_map(|manifest| manifest.imatrix.as_ref().map(|file| file.name.clone())),
        files,
        plot: None,
    }
}

fn once<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    all.fold(Vec::new(), |mut list, item| {
        if !list.contains(&item) {
            list.push(item);
        }
        list
    })
}

fn of_group(group: &Group) -> CardFile {
    let shards = group.shards.iter().map(|shard| (shard.name.to_string(), shard.size, shard.sha256.clone())).collect();
    let report = group.beside.iter().filter_map(|path| path.file_name()?.to_str()).find(|name| name.ends_with(".report.md"));
    let of_manifest = group.manifest.as_ref().and_then(|manifest| manifest.file_type.clone());
    let file_type = group.report.as_ref().map(|report| report.file_type.clone()).or(of_manifest);
    CardFile {
        shards,
        file_type: file_type.unwrap_or_default(),
        bits_per_weight: group.report.as_ref().map(|report| report.bits_per_weight),
        verdict: group.verdict,
        report: report.map(str::to_owned),
        figures: group.report.as_ref().and_then(figures),
    }
}

fn figures(report: &Report) -> Option<Figures> {
    let figures = report.figures.as_ref().filter(|figures| figures.windows > 0)?;
    let histogram = &figures.kld_histogram;
    Some(Figures {
        text: figures.text.name.clone(),
        windows: figures.windows,
        n_ctx: figures.n_ctx,
        perplexity_source: (figures.perplexity_source, figures.perplexity_source_error),
        perplexity: (figures.perplexity, figures.perplexity_error),
        kld: (figures.kld_mean, figures.kld_mean_error),
        same_top1: (figures.same_top1, figures.same_top1_error),
        kld_histogram: (histogram.from, histogram.width, histogram.counts.clone()),
    })
}

/// GGUF files that the repository holds and this push does not: their rows are kept, with their reports where these are about the
/// bytes that are there.
pub fn others(client: &Client, repo: &RepoId, state: &State, groups: &[Group]) -> Result<Vec<Other>, Failure> {
    let ours = |name: &str| groups.iter().flat_map(|group| &group.shards).any(|shard| shard.name.as_str() == name);
    let mut left: Vec<_> = state.files.iter().filter(|entry| entry.name.as_str().ends_with(".gguf")).collect();
    // What goes beside a model is none.
    let beside = |name: &str| ["mmproj", "imatrix"].iter().any(|word| name.to_lowercase().contains(word));
    left.retain(|entry| !ours(entry.name.as_str()) && !beside(entry.name.as_str()));
    left.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
    let mut found = Vec::new();
    while !left.is_empty() {
        let first = left.remove(0);
        let name = first.name.to_string();
        let report = read_report(client, repo, state, &format!("{name}.report.json"))?;
        let mut entries = vec![first];
        for file in report.iter().flat_map(|report| &report.files) {
            if let Some(at) = left.iter().position(|entry| entry.name.as_str() == file.name) {
                entries.push(left.remove(at));
            }
        }
        // Shards of a file that nobody verified are one file all the same.
        let set = |name: &str| shard_name(name).map(|(stem, _, count)| (stem.to_owned(), count));
        if let Some(shards) = set(&name) {
            let (mine, others) = left.into_iter().partition(|entry| set(entry.name.as_str()).as_ref() == Some(&shards));
            entries.extend::<Vec<_>>(mine);
            left = others;
        }
        let hash = |entry: &ggufsmith_hub::Entry| match &entry.hash {
            Hash::Sha256(hex) => hex.clone(),
            Hash::Git(_) => String::new(),
        };
        let same = |report: &Report| {
            report.files.len() == entries.len()
                && report.files.iter().all(|file| entries.iter().any(|entry| hash(entry) == file.sha256 && entry.size == file.bytes))
        };
        let report = report.filter(same);
        let page = format!("{name}.report.md");
        let manifest = read_manifest(client, repo, state, &format!("{name}.manifest.json"))?;
        let about = |manifest: &Manifest| manifest.outputs.iter().any(|output| entries.iter().any(|e| hash(e) == output.sha256));
        let manifest = manifest.filter(about);
        let file = CardFile {
            shards: entries.iter().map(|entry| (entry.name.to_string(), entry.size, hash(entry))).collect(),
            file_type: report.as_ref().map(|report| report.file_type.clone()).unwrap_or_default(),
            bits_per_weight: report.as_ref().map(|report| report.bits_per_weight),
            verdict: judge(report.as_ref(), None).0,
            report: report.is_some().then_some(page).filter(|page| state.find(page).is_some()),
            figures: report.as_ref().and_then(figures),
        };
        found.push(Other { file, manifest });
    }
    Ok(found)
}

fn read_manifest(client: &Client, repo: &RepoId, state: &State, name: &str) -> Result<Option<Manifest>, Failure> {
    let Some(entry) = state.find(name).filter(|entry| entry.size <= MANIFEST_BYTES) else { return Ok(None) };
    let bytes = client.small_file(repo, &state.commit, entry, MANIFEST_BYTES).map_err(failure)?;
    // One that cannot be read says nothing.
    Ok(serde_json::from_slice(&bytes).ok())
}

fn read_report(client: &Client, repo: &RepoId, state: &State, name: &str) -> Result<Option<Report>, Failure> {
    let Some(entry) = state.find(name).filter(|entry| entry.size <= REPORT_BYTES) else { return Ok(None) };
    let bytes = client.small_file(repo, &state.commit, entry, REPORT_BYTES).map_err(failure)?;
    // One of another version or of somebody else's making proves nothing here.
    Ok(serde_json::from_slice(&bytes).ok().filter(|report: &Report| report.schema == report::SCHEMA))
}

/// A card of the Hub.
pub fn existing(client: &Client, repo: &RepoId, state: &State) -> Result<Option<String>, Failure> {
    let Some(entry) = state.find(CARD) else { return Ok(None) };
    let bytes = client.small_file(repo, &state.commit, entry, CARD_BYTES).map_err(failure)?;
    let text = String::from_utf8(bytes);
    text.map(Some).map_err(|_| Failure::new(format!("the {CARD} of {repo} is no text")).hint("remove or repair it, then push again"))
}

/// The source's card: license, language and tags come from it. Without it they are missing, which is said.
pub fn of_source(client: &Client, card: &Card) -> Result<Option<String>, Failure> {
    let Some(base) = &card.base_model else {
        output::warning("no manifest names the model on the Hub that the files were made from: say it with --base-model");
        return Ok(None);
    };
    let repo: RepoId = base.parse().map_err(failure)?;
    let revision = card.revision.as_deref().unwrap_or("main").parse().map_err(failure)?;
    let read = client.state(&repo, &revision).or_else(|error| match error {
        // A commit of a directory with the same name, or of a branch that is gone.
        HubError::RevisionNotFound { .. } => client.state(&repo, &ggufsmith_hub::Revision::main()),
        error => Err(error),
    });
    let missing = |why: &str| {
        output::warning(&format!("{repo}: {why}; the model card says nothing of license and language"));
        Ok(None)
    };
    match read {
        Ok(Some(state)) => match existing(client, &repo, &state) {
            Ok(None) => missing("it has no model card"),
            Ok(found) => Ok(found),
            Err(Failure::Interrupted) => Err(Failure::Interrupted),
            Err(Failure::Error { error, .. }) => missing(&error.to_string()),
            Err(other) => Err(other),
        },
        Ok(None) => missing("it is not on the Hub"),
        Err(HubError::Interrupted) => Err(Failure::Interrupted),
        Err(error) if error.is_transient() => Err(failure(error)),
        Err(error) => missing(&error.to_string()),
    }
}
