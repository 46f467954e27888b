//! `[OUT.gguf] TYPE [THREADS]`, told apart as llama-quantize does: what is a type is no file.

use crate::failure::Failure;
use crate::names::{self, TypeNameError};
use ggufsmith_convert::recipe::{COPY, FileType, RECIPES};
use std::path::PathBuf;

/// As many threads as `--threads` takes.
const MAX_THREADS: u16 = 1024;

/// What follows the input.
#[derive(Debug)]
pub struct Operands {
    /// The file to write, where it was named.
    pub out: Option<PathBuf>,
    /// `COPY` or a file type that can be written.
    pub file_type: &'static FileType,
    /// Number of threads; none for one per core.
    pub threads: Option<u16>,
}

impl Operands {
    /// Read them.
    ///
    /// # Errors
    /// [`Failure`] where there is no type, or something is left over.
    pub fn parse(words: &[String]) -> Result<Self, Failure> {
        let (out, rest) = match words {
            [first, rest @ ..] if !is_type(first) && !rest.is_empty() => (Some(PathBuf::from(first)), rest),
            words => (None, words),
        };
        let Some((name, rest)) = rest.split_first() else { return Err(no_type()) };
        if out.is_none() && name.to_lowercase().ends_with(".gguf") {
            return Err(no_type());
        }
        let file_type = file_type(name).map_err(|error| Failure::new(format!("{name}: {error}")))?;
        let threads = match rest {
            [] => None,
            [threads] => count(threads)?,
            [_, extra, ..] => return Err(Failure::new(format!("{extra:?} is one operand too many: [OUT.gguf] TYPE [THREADS]"))),
        };
        match out {
            Some(out) if out.as_os_str().is_empty() => Err(Failure::new("the name of the output is empty")),
            out => Ok(Operands { out, file_type, threads }),
        }
    }
}

fn no_type() -> Failure {
    Failure::new("which type is to be written? It comes behind the files: ggufsmith quantize IN.gguf [OUT.gguf] TYPE [THREADS]")
        .hint("`ggufsmith list types` shows all; COPY keeps every tensor as it is")
}

/// Whether llama-quantize takes a word as a type, be it one that cannot be written yet.
fn is_type(word: &str) -> bool {
    !matches!(file_type(word), Err(TypeNameError::Unknown(..) | TypeNameError::Auto(_)))
}

/// The type of a name in any case, or of llama-quantize's number for it.
fn file_type(word: &str) -> Result<&'static FileType, TypeNameError> {
    if word.eq_ignore_ascii_case(COPY.name()) {
        return Ok(&COPY);
    }
    let number: Option<u32> = if word.bytes().all(|b| b.is_ascii_digit()) { word.parse().ok() } else { None };
    let by_number = number.and_then(|number| RECIPES.iter().find(|recipe| recipe.ftype == number));
    names::file_type(by_number.map_or(word, |recipe| recipe.name()))
}

/// 0 and what is below it stand for one per core.
fn count(word: &str) -> Result<Option<u16>, Failure> {
    match word.parse::<i64>() {
        Ok(number) if number <= 0 => Ok(None),
        Ok(number) if number <= i64::from(MAX_THREADS) => Ok(u16::try_from(number).ok()),
        _ => Err(Failure::new(format!("{word:?} is no number of threads; there may be {MAX_THREADS} at most"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<(Option<String>, &'static str, Option<u16>), String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let operands = Operands::parse(&words).map_err(|failure| format!("{failure:?}"))?;
        let out = operands.out.map(|out| out.to_string_lossy().into_owned());
        Ok((out, operands.file_type.name(), operands.threads))
    }

    #[test]
    fn a_type_is_no_file() {
        assert_eq!(parse(&["q4_k_m"]), Ok((None, "Q4_K_M", None)));
        assert_eq!(parse(&["q4_k"]), Ok((None, "Q4_K_M", None)));
        assert_eq!(parse(&["15", "4"]), Ok((None, "Q4_K_M", Some(4))));
        assert_eq!(parse(&["o.gguf", "15", "0"]), Ok((Some("o.gguf".into()), "Q4_K_M", None)));
        assert_eq!(parse(&["o", "copy", "-1"]), Ok((Some("o".into()), "COPY", None)));
        assert_eq!(parse(&["0"]), Ok((None, "F32", None)));
        assert_eq!(parse(&["5", "1"]), Ok((Some("5".into()), "F16", None)), "no type has the number 5");
        let numbers = RECIPES.iter().filter(|recipe| names::file_type(recipe.name()).is_ok());
        for recipe in numbers {
            assert_eq!(parse(&[&recipe.ftype.to_string()]).unwrap().1, recipe.name());
        }
    }

    #[test]
    fn what_is_missing_or_too_much_is_said() {
        let fault = |words: &[&str]| parse(words).unwrap_err();
        assert!(fault(&["o.gguf"]).contains("which type"));
        assert!(fault(&["xyzzy"]).contains("xyzzy: no such type"));
        assert!(fault(&["o.gguf", "xyzzy"]).contains("no such type"));
        assert!(fault(&["Q4_0", "2", "3"]).contains("too many"));
        assert!(fault(&["o.gguf", "Q4_0", "two"]).contains("number of threads"));
        assert!(fault(&["Q4_0", "2000"]).contains("1024"));
        assert!(fault(&["", "Q4_0"]).contains("empty"));
        let not_yet = RECIPES.iter().find(|recipe| names::file_type(recipe.name()).is_err());
        if let Some(recipe) = not_yet {
            assert!(fault(&[recipe.name()]).contains("cannot write it yet"));
            assert!(fault(&[&recipe.ftype.to_string(), "2"]).contains("cannot write it yet"), "a type, not a file");
        }
    }
}
