//! Large files by Xet, the Hub's own storage: chunks are found by their content, so what is there already (a run that was cut, a
//! file of nearly the same bytes) is not sent again. The protocol is hf-xet's.

use super::{Local, UploadWatch, Wish};
use crate::error::{HubError, printable};
use crate::http::{Client, Request};
use serde::Deserialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use xet::XetError;
use xet::xet_session::{HeaderMap, HeaderValue, Sha256Policy, XetConfig, XetSessionBuilder, XetUploadCommit};

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Permit {
    access_token: String,
    exp: u64,
    cas_url: String,
}

impl Client {
    /// Files into Xet's storage; how many bytes were sent, which it did not have.
    pub(super) fn store_by_xet(&self, wish: &Wish, files: &[&Local], watch: &Arc<dyn UploadWatch>) -> Result<u64, HubError> {
        let address =
            self.url(&format!("/api/models/{}/xet-write-token/{}{}", wish.repo, wish.revision.segment(), wish.query()))?;
        let permit: Permit = self.json(&Request::get(address.clone()))?;
        let storage = self.named_url(&self.url("/")?, &permit.cas_url)?;
        let mut headers = HeaderMap::new();
        if let Some(token) = &self.settings().token {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.secret()));
            let mut value = value.map_err(|_| HubError::Setup("the token holds what no header may".to_owned()))?;
            value.set_sensitive(true);
            headers.insert("authorization", value);
        }
        let session = XetSessionBuilder::new_with_config(self.xet_config()?).build().map_err(failed)?;
        let builder = session.new_upload_commit().map_err(failed)?;
        let builder = builder.with_endpoint(storage.as_str().trim_end_matches('/'));
        let builder = builder.with_token_info(permit.access_token, permit.exp).with_token_refresh_url(address.as_str(), headers);
        let commit = builder.build_blocking().map_err(failed)?;
        let ended = AtomicBool::new(false);
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| self.look_after(&commit, &ended, watch));
            let outcome = put(&commit, files);
            ended.store(true, Ordering::Relaxed);
            outcome
        });
        if self.cancel().asked() { Err(HubError::Interrupted) } else { outcome }
    }

    /// What the user's environment says of Xet (`HF_XET_*`), and what we say.
    fn xet_config(&self) -> Result<XetConfig, HubError> {
        let settings = self.settings();
        let delay = format!("{}ms", settings.backoff.as_millis());
        let attempts = settings.attempts.saturating_sub(1).to_string();
        let ours = [
            // Nobody was asked whether figures of his transfers may be sent along.
            ("telemetry.enabled", "false"),
            ("client.retry_base_delay", &delay),
            ("client.retry_max_attempts", &attempts),
            // After every object is noted that it is there, so that a run which is killed is resumed.
            ("data.session_xorb_metadata_flush_max_count", "1"),
        ];
        let set = |config: XetConfig, (name, value): (&str, &str)| config.with_config(name, value);
        let config = ours.into_iter().try_fold(XetConfig::new(), set);
        config.map_err(|error| HubError::Setup(format!("Xet's settings: {error}")))
    }

    /// Tell of progress, and stop when the user wants to.
    fn look_after(&self, commit: &XetUploadCommit, ended: &AtomicBool, watch: &Arc<dyn UploadWatch>) {
        let mut told = 0;
        loop {
            let last = ended.load(Ordering::Relaxed);
            let done = commit.progress().total_bytes_completed;
            watch.advance(done.saturating_sub(told));
            told = told.max(done);
            if last {
                return;
            }
            if self.cancel().asked() {
                // That it cannot be stopped any more means that it has ended.
                let _ = commit.abort();
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// What went wrong, in our words as far as it can be told.
fn failed(error: XetError) -> HubError {
    let passes = matches!(
        error,
        XetError::Network(_)
            | XetError::RateLimited(_)
            | XetError::ServerError(_)
            | XetError::Timeout(_)
            | XetError::Cancelled(_)
    );
    HubError::Xet { passes, why: printable(&error.to_string(), 500) }
}

fn put(commit: &XetUploadCommit, files: &[&Local]) -> Result<u64, HubError> {
    let mut uploads = Vec::with_capacity(files.len());
    for file in files {
        let upload = match file.path() {
            Some(path) => commit.upload_from_path_blocking(path.to_owned(), Sha256Policy::Compute),
            None => commit.upload_bytes_blocking(file.whole()?, Sha256Policy::Compute, Some(file.name.to_string())),
        };
        uploads.push((file, upload.map_err(failed)?));
    }
    for (file, upload) in uploads {
        let metadata = upload.finalize_ingestion_blocking().map_err(failed)?;
        // The Hub knows it by this hash: one of other bytes is never committed.
        if metadata.xet_info.sha256.as_ref() != Some(&file.sha256) {
            return Err(HubError::Changed {
                file: file.path().map_or_else(|| file.name.to_string(), |p| p.display().to_string()),
            });
        }
    }
    let report = commit.commit_blocking().map_err(failed)?;
    Ok(report.progress.total_transfer_bytes_completed)
}
