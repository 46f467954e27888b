//! What the Hub's storage is asked: the batch API of Git LFS (git-lfs, docs/api/batch.md), with the Hub's own way to send a file in
//! parts (hf.co/docs: `multipart` transfer).

use super::{Local, Wish};
use crate::error::{At, HubError, printable};
use crate::http::{Client, Content, Repeat, Request};
use reqwest::Url;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Of Git LFS.
const MEDIA: &str = "application/vnd.git-lfs+json";
/// More parts has no storage.
const MOST_PARTS: u64 = 10_000;

#[derive(Deserialize)]
struct Batch {
    transfer: Option<String>,
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    oid: String,
    #[serde(default)]
    actions: Option<Actions>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Actions {
    upload: Option<Action>,
    verify: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: Option<BTreeMap<String, Value>>,
}

/// How one file gets into the storage.
#[derive(Debug)]
pub(super) struct Order {
    pub target: Target,
    /// Where it is reported when it is done.
    pub verify: Option<(Url, Vec<(String, String)>)>,
}

#[derive(Debug)]
pub(super) enum Target {
    /// In one piece, with headers.
    Whole(Url, Vec<(String, String)>),
    /// In parts of so many bytes; then the list of their tags goes to the first address.
    Parts { done: Url, bytes: u64, parts: Vec<Url> },
}

/// What the storage answers.
pub(super) enum Answer {
    /// Per file: none where it is there already.
    Plain(Vec<Option<Order>>),
    /// All of them by Xet, which finds out itself what is there.
    Xet,
}

impl Client {
    /// Ask how files get into the storage.
    pub(super) fn batch(&self, wish: &Wish, files: &[&Local], transfers: &[&str]) -> Result<Answer, HubError> {
        let url = self.url(&format!("/{}.git/info/lfs/objects/batch", wish.repo))?;
        let objects: Vec<Value> = files.iter().map(|file| json!({ "oid": file.sha256, "size": file.size })).collect();
        let wanted = json!({
            "operation": "upload", "transfers": transfers, "objects": objects, "hash_algo": "sha256",
            "ref": { "name": wish.revision.as_str() }
        });
        let Content::Bytes(_, body) = Content::json(&wanted)? else {
            return Err(HubError::Setup("JSON is bytes".to_owned()));
        };
        let request = Request::post(url, Content::Bytes(MEDIA, body)).header("accept", MEDIA)?.repeat(Repeat::Harmless);
        let batch: Batch = self.json(&request)?;
        let at = request.at(None);
        let object = |file: &&Local| {
            let object = batch.objects.iter().find(|object| object.oid == file.sha256);
            let wrong = |what: String| HubError::Protocol { at: at.clone(), what };
            let object = object.ok_or_else(|| wrong(format!("it says nothing of {}", file.name)))?;
            match &object.error {
                Some(error) => {
                    let message = format!("{}: {}", file.name, printable(&error.message, 300));
                    Err(match error.code {
                        403 => HubError::Forbidden { at: at.clone(), message },
                        413 | 422 => HubError::TooLarge { at: at.clone(), message },
                        status => HubError::Refused { at: at.clone(), status, message },
                    })
                }
                None => Ok(object.actions.as_ref()),
            }
        };
        if batch.transfer.as_deref() == Some("xet") {
            if !transfers.contains(&"xet") {
                return Err(HubError::Protocol { at, what: "it wants Xet, which was not offered".to_owned() });
            }
            // Its objects say less than those of plain storage: huggingface_hub looks at none of them, either.
            return Ok(Answer::Xet);
        }
        let order = |file: &&Local| match object(file)? {
            Some(Actions { upload: Some(upload), verify }) => self.order(file, upload, verify.as_ref(), &at).map(Some),
            _ => Ok(None),
        };
        files.iter().map(order).collect::<Result<_, _>>().map(Answer::Plain)
    }

    fn order(&self, file: &Local, upload: &Action, verify: Option<&Action>, at: &At) -> Result<Order, HubError> {
        let wrong = |what: &str| HubError::Protocol { at: at.clone(), what: format!("{}: {what}", file.name) };
        let base = self.url("/")?;
        let header = upload.header.clone().unwrap_or_default();
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let headers = |header: &BTreeMap<String, Value>| header.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        let verify = match verify {
            Some(verify) => {
                let header = verify.header.clone().unwrap_or_default();
                Some((self.named_url(&base, &verify.href)?, headers(&header)))
            }
            None => None,
        };
        let href = self.named_url(&base, &upload.href)?;
        let Some(bytes) = header.get("chunk_size") else {
            return Ok(Order { target: Target::Whole(href, headers(&header)), verify });
        };
        let bytes = text(bytes).parse::<u64>().ok().filter(|bytes| *bytes > 0).ok_or_else(|| wrong("parts of no size"))?;
        let count = file.size.div_ceil(bytes);
        if count > MOST_PARTS {
            return Err(wrong("too many parts"));
        }
        let mut numbered: BTreeMap<u64, &Value> = BTreeMap::new();
        for (name, value) in &header {
            if let Ok(number) = name.parse::<u64>() {
                numbered.insert(number, value);
            }
        }
        let part = |number: u64| {
            let href = numbered.get(&number).and_then(|value| value.as_str()).ok_or_else(|| wrong("a part has no address"))?;
            self.named_url(&base, href)
        };
        let parts = (1..=count).map(part).collect::<Result<_, _>>()?;
        if numbered.len() as u64 != count {
            return Err(wrong("its parts do not add up to its size"));
        }
        Ok(Order { target: Target::Parts { done: href, bytes, parts }, verify })
    }

    /// Tell the Hub that a file is in its storage.
    pub(super) fn report(&self, file: &Local, verify: &(Url, Vec<(String, String)>)) -> Result<(), HubError> {
        let Content::Bytes(_, body) = Content::json(&json!({ "oid": file.sha256, "size": file.size }))? else {
            return Err(HubError::Setup("JSON is bytes".to_owned()));
        };
        let mut request = Request::post(verify.0.clone(), Content::Bytes(MEDIA, body)).header("accept", MEDIA)?;
        for (name, value) in &verify.1 {
            request = request.header(name, value)?;
        }
        self.send(&request.repeat(Repeat::Harmless)).map(drop)
    }
}
