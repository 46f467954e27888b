//! Files that carry the values of a scheme which GGUF does not have: what they were made with, by their manifest or by trying.

use ggufsmith_checkpoint::Rounding;
use ggufsmith_core::SCHEMES;
use serde_json::Value;
use std::ffi::OsString;
use std::io::Read;
use std::path::Path;

/// A manifest is at most so long; of a large model it lists some hundred files.
const MAX_BYTES: u64 = 16 << 20;

/// A text that names no scheme.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "{0:?} names no values: a scheme is needed, NF4 or FP4, with the block length where it is not 64 and \"double\" where the scales are quantized, as in NF4/128/double"
)]
pub struct ValuesError(String);

/// Read `SCHEME[/BLOCK][/double]`.
///
/// # Errors
/// [`ValuesError`] for anything else.
pub fn parse(text: &str) -> Result<Rounding, ValuesError> {
    let fault = || ValuesError(text.to_owned());
    let mut parts = text.split('/');
    let name = parts.next().unwrap_or_default();
    let scheme = SCHEMES.iter().copied().find(|scheme| scheme.name.eq_ignore_ascii_case(name)).ok_or_else(fault)?;
    let mut rounding = Rounding { scheme, block_len: 64, double: false, skip_modules: Vec::new() };
    for part in parts {
        match part.parse() {
            Ok(block_len) if Rounding::BLOCK_LENS.contains(&block_len) => rounding.block_len = block_len,
            Err(_) if part.eq_ignore_ascii_case("double") => rounding.double = true,
            _ => return Err(fault()),
        }
    }
    Ok(rounding)
}

/// What the manifest beside a file says of this very file (`sha256`); nothing where there is none, or it speaks of another one.
pub(crate) fn of_manifest(file: &Path, sha256: &str) -> Option<Rounding> {
    let mut name = OsString::from(file.file_name()?);
    name.push(".manifest.json");
    let mut text = Vec::new();
    std::fs::File::open(file.with_file_name(name)).ok()?.take(MAX_BYTES).read_to_end(&mut text).ok()?;
    let manifest: Value = serde_json::from_slice(&text).ok()?;
    let is_this = |output: &Value| output.get("sha256").and_then(Value::as_str) == Some(sha256);
    if !manifest.get("outputs")?.as_array()?.iter().any(is_this) {
        return None;
    }
    let values = manifest.get("values")?;
    let name = values.get("scheme")?.as_str()?;
    let scheme = SCHEMES.iter().copied().find(|scheme| scheme.name == name)?;
    let skipped = values.get("skip_modules").and_then(Value::as_array).into_iter().flatten();
    Some(Rounding {
        scheme,
        block_len: values.get("block_size")?.as_u64().filter(|len| Rounding::BLOCK_LENS.contains(len))?,
        double: values.get("double_quant")?.as_bool()?,
        skip_modules: skipped.filter_map(Value::as_str).map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_named_in_short() {
        let short = |text: &str| parse(text).map(|r| (r.scheme.name, r.block_len, r.double));
        assert_eq!(short("nf4").unwrap(), ("NF4", 64, false));
        assert_eq!(short("FP4/128").unwrap(), ("FP4", 128, false));
        assert_eq!(short("NF4/Double/4096").unwrap(), ("NF4", 4096, true));
        for text in ["", "Q8_0", "NF4/96", "NF4/", "NF4/twice", "INT8"] {
            assert!(short(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn manifests_speak_of_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.gguf");
        let write = |text: &str| std::fs::write(dir.path().join("a.gguf.manifest.json"), text).unwrap();
        assert!(of_manifest(&file, "ab").is_none());
        let good = r#"{"outputs": [{"sha256": "ab"}], "values": {"scheme": "NF4", "block_size": 64, "double_quant": true, "skip_modules": ["x"]}}"#;
        write(good);
        let found = of_manifest(&file, "ab").unwrap();
        assert_eq!(
            (found.scheme.name, found.block_len, found.double, found.skip_modules),
            ("NF4", 64, true, vec!["x".to_owned()])
        );
        assert!(of_manifest(&file, "cd").is_none());
        for (from, to) in [("NF4", "NF5"), ("64", "63"), ("true", "1"), ("{\"outputs", "{{\"outputs"), ("values", "value")] {
            write(&good.replacen(from, to, 1));
            assert!(of_manifest(&file, "ab").is_none(), "{from}");
        }
    }
}
