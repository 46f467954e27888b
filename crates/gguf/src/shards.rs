//! A model in one file or in several.

use crate::error::{GgufError, ShardError};
use crate::file::Gguf;
use crate::layout::GgufTensor;
use crate::limits::Limits;
use crate::rules;
use crate::split::{SPLIT_COUNT, SPLIT_NO, SPLIT_TENSORS_COUNT, shard_path};
use crate::value::Metadata;
use std::path::Path;

/// All files of a model: one, or shards that belong together.
#[derive(Debug)]
pub struct Shards {
    files: Vec<Gguf>,
    /// File and position of every tensor, ordered by name.
    by_name: Vec<(u32, u32)>,
}

impl Shards {
    /// Open the model that `path` belongs to: the file itself or, where it is a shard (any of them), the files beside it that
    /// carry the same name and another number.
    ///
    /// # Errors
    /// [`GgufError`] where a file is missing or not valid, or the files do not belong together.
    pub fn open(path: &Path, limits: &Limits) -> Result<Shards, GgufError> {
        let given = Gguf::open(path, limits)?;
        let count = given.metadata().lookup::<u16>(SPLIT_COUNT).map_err(|e| fault(path, e.into()))?.unwrap_or(1);
        let files = if count <= 1 { vec![alone(given, count)?] } else { open_all(given, count, limits)? };
        Self::index(files)
    }

    fn index(files: Vec<Gguf>) -> Result<Shards, GgufError> {
        let mut places = Vec::new();
        for (file, gguf) in (0_u32..).zip(&files) {
            places.extend((0_u32..).zip(gguf.tensors()).map(|(tensor, _)| (file, tensor)));
        }
        let tensor = |place: (u32, u32)| &files[place.0 as usize].tensors()[place.1 as usize];
        let (order, again) = rules::sort_names(places.len(), |i| &tensor(places[i]).name);
        if let Some(again) = again {
            let place = places[again];
            let kind = ShardError::DuplicateTensor { tensor: tensor(place).name.clone() };
            return Err(fault(files[place.0 as usize].path(), kind));
        }
        let by_name = order.into_iter().map(|i| places[i as usize]).collect();
        Ok(Shards { files, by_name })
    }

    /// The files, in shard order.
    pub fn files(&self) -> &[Gguf] {
        &self.files
    }

    /// Keys and values of the model: those of the first file.
    pub fn metadata(&self) -> &Metadata {
        self.files[0].metadata() // there is always one
    }

    /// Every tensor, file after file.
    pub fn tensors(&self) -> impl Iterator<Item = &GgufTensor> {
        self.files.iter().flat_map(|file| file.tensors())
    }

    fn find(&self, name: &str) -> Option<(&Gguf, &GgufTensor)> {
        let at = |place: (u32, u32)| {
            let file = &self.files[place.0 as usize];
            (file, &file.tensors()[place.1 as usize])
        };
        let found = self.by_name.binary_search_by(|&place| at(place).1.name.as_str().cmp(name)).ok()?;
        Some(at(self.by_name[found]))
    }

    /// One tensor by name.
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        Some(self.find(name)?.1)
    }

    /// Fill `out` with a tensor's bytes from `offset` (in bytes, inside the tensor) on; from any thread.
    ///
    /// # Errors
    /// [`GgufError`] where there is no such tensor, the range leaves it, or its file cannot be read.
    pub fn read_at(&self, name: &str, offset: u64, out: &mut [u8]) -> Result<(), GgufError> {
        let Some((file, tensor)) = self.find(name) else {
            return Err(GgufError::NoTensor { file: self.files[0].path().to_owned(), tensor: name.to_owned() });
        };
        file.read_at(tensor, offset, out)
    }
}

fn fault(file: &Path, kind: ShardError) -> GgufError {
    GgufError::Shard { file: file.to_owned(), kind }
}

/// A file that calls itself the only one. (What llama-gguf-split merges has a count of 0.)
fn alone(file: Gguf, count: u16) -> Result<Gguf, GgufError> {
    match file.metadata().lookup::<u16>(SPLIT_NO) {
        Err(error) => Err(fault(file.path(), error.into())),
        Ok(Some(no)) if no > 0 => Err(fault(file.path(), ShardError::NotAlone { no, count })),
        Ok(_) => Ok(file),
    }
}

/// The other shards, by the given one's name; checked against what each says about itself.
fn open_all(given: Gguf, count: u16, limits: &Limits) -> Result<Vec<Gguf>, GgufError> {
    let path = given.path().to_owned();
    let Some((stem, given_no, given_count)) = path.file_name().and_then(|n| n.to_str()).and_then(shard_name) else {
        return Err(fault(&path, ShardError::Name { count }));
    };
    check_number(&given, given_no, given_count)?;
    let base = path.with_file_name(format!("{stem}.gguf"));
    let mut given = Some(given);
    let mut files = Vec::with_capacity(usize::from(count));
    for no in 1..=u32::from(count) {
        let shard = match given.take_if(|_| no == given_no) {
            Some(shard) => shard,
            None => Gguf::open(&shard_path(&base, no as usize - 1, usize::from(count)), limits)?,
        };
        check_number(&shard, no, u32::from(count))?;
        files.push(shard);
    }
    let found: u64 = files.iter().map(|f| f.tensors().len() as u64).sum();
    for shard in &files {
        let expected = shard.metadata().require::<i32>(SPLIT_TENSORS_COUNT).map_err(|e| fault(shard.path(), e.into()))?;
        if u64::try_from(expected) != Ok(found) {
            return Err(fault(shard.path(), ShardError::TensorCount { expected, found }));
        }
    }
    Ok(files)
}

/// A file whose name says shard `name_no` (from 1) of `name_count` must say so itself.
fn check_number(shard: &Gguf, name_no: u32, name_count: u32) -> Result<(), GgufError> {
    let key = |key| shard.metadata().require::<u16>(key).map_err(|e| fault(shard.path(), e.into()));
    let (no, count) = (key(SPLIT_NO)?, key(SPLIT_COUNT)?);
    if u32::from(no) + 1 != name_no || u32::from(count) != name_count || no >= count {
        return Err(fault(shard.path(), ShardError::Number { name_no, name_count, no, count }));
    }
    Ok(())
}

/// `STEM-00002-of-00005.gguf` as (stem, 2, 5): what llama.cpp calls shards.
pub fn shard_name(name: &str) -> Option<(&str, u32, u32)> {
    let number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, no) = rest.rsplit_once('-')?;
    if no.len() != 5 || count.len() != 5 {
        return None;
    }
    Some((stem, number(no)?, number(count)?))
}
