//! What a model's name says: organization, base name, size, fine-tune, version (gguf-py's `Metadata.get_model_id_components`).

use super::python::{is_lower, is_space, strip, title_of_lower};
use fancy_regex::Regex;
use std::sync::LazyLock;

/// The parts of a model id such as `org/Base-7B-Chat-v0.1`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelId {
    /// The id without its organization, unchanged.
    pub full_name: Option<String>,
    /// Before the first slash.
    pub organization: Option<String>,
    /// E.g. `Mixtral`; absent where no other part was recognised.
    pub basename: Option<String>,
    /// E.g. `Instruct`.
    pub finetune: Option<String>,
    /// E.g. `v0.1`.
    pub version: Option<String>,
    /// E.g. `8x7B`.
    pub size_label: Option<String>,
}

/// What one dash-separated part was recognised as; a part may be several things.
#[derive(Clone, Copy, Default)]
struct Kinds {
    basename: bool,
    size_label: bool,
    finetune: bool,
    version: bool,
    quant_type: bool,
}

impl Kinds {
    fn count(self) -> usize {
        [self.basename, self.size_label, self.finetune, self.version, self.quant_type].into_iter().filter(|k| *k).count()
    }
}

macro_rules! pattern {
    ($name:ident, $regex:literal) => {
        // The pattern is a constant that the tests compile.
        static $name: LazyLock<Regex> = LazyLock::new(|| Regex::new($regex).expect("a valid pattern"));
    };
}
// `re.IGNORECASE` also equates i with the Turkish İ and ı, which simple case folding keeps apart.
pattern!(VERSION, r"^(?i:v|[iİı]ter)?\d+([.]\d+)*\z");
pattern!(QUANT_TYPE, r"^(?i)([iİı]?q\d(_[\p{L}\p{N}_])*|b?fp?(16|32))\z");
pattern!(SIZE, r"^(?i)((a|\d+x)?\d+([._]\d+)?[kmbt]\d?|small|m[iİı]n[iİı]|med[iİı]um|large|x?xl)\z");
pattern!(FINETUNE, r"^(?i)(chat|[iİı]nstruct|v[iİı]s[iİı]on|lora)\z");
pattern!(DECIMAL, r"\d");
pattern!(NOT_A_LETTER, r"\P{L}");
pattern!(VERSION_OR_NUMBER, r"^(v\d+(\.\d+)*\z|\d)");

fn is(pattern: &Regex, text: &str) -> bool {
    // Only patterns with look-around or back-references can fail to decide; none of these has any.
    pattern.is_match(text).unwrap_or(false)
}

fn is_decimal(c: char) -> bool {
    c.is_ascii_digit() || (!c.is_ascii() && is(&DECIMAL, c.encode_utf8(&mut [0; 4])))
}

fn is_alphabetic(text: &str) -> bool {
    !text.is_empty() && !is(&NOT_A_LETTER, text)
}

impl ModelId {
    /// Take a model id apart. `total_params` (0: unknown) tells a size such as `7B` from a context length such as `128k`.
    pub fn parse(id: &str, total_params: u64) -> ModelId {
        if id.contains(' ') {
            // A sentence, no id.
            return ModelId { full_name: Some(id.to_owned()), ..Default::default() };
        }
        let (organization, full_name) = id.split_once('/').map_or((None, id), |(org, name)| (Some(org), name));
        let organization = organization.filter(|org| !org.starts_with('.'));

        let mut parts: Vec<String> = full_name.split('-').filter(|p| !p.is_empty()).map(str::to_owned).collect();
        let mut kinds: Vec<Kinds> = parts.iter_mut().enumerate().map(|(i, part)| annotate(part, i == 0, total_params)).collect();
        mark_basename(&parts, &mut kinds);

        let join = |wanted: fn(&Kinds) -> bool| {
            let chosen: Vec<&str> = parts.iter().zip(&kinds).filter(|(_, k)| wanted(k)).map(|(p, _)| p.as_str()).collect();
            Some(chosen.join("-")).filter(|s| !s.is_empty())
        };
        let mut sizes: Vec<&str> = Vec::new();
        for (part, _) in parts.iter().zip(&kinds).filter(|(_, k)| k.size_label) {
            if !sizes.contains(&part.as_str()) {
                sizes.push(part);
            }
        }
        let size_label = Some(sizes.join("-")).filter(|s| !s.is_empty());
        let finetune = join(|k| k.finetune);
        let version = join(|k| k.version && !k.basename);
        let ambiguous = size_label.is_none() && finetune.is_none() && version.is_none();
        ModelId {
            full_name: Some(full_name.to_owned()),
            organization: organization.map(str::to_owned),
            basename: join(|k| k.basename).filter(|_| !ambiguous),
            finetune,
            version,
            size_label,
        }
    }
}

/// Recognise one part and write it the usual way (`7b` as `7B`, `q4_0` as `Q4_0`).
fn annotate(part: &mut String, first: bool, total_params: u64) -> Kinds {
    let mut kinds = Kinds::default();
    if is(&VERSION, part) {
        kinds.version = true;
    } else if is(&QUANT_TYPE, part) {
        kinds.quant_type = true;
        *part = part.to_uppercase();
    } else if !first && is(&SIZE, part) {
        let (label, is_size) = size(part, total_params);
        *part = label;
        kinds.size_label = is_size;
        kinds.finetune = !is_size;
    } else if !first && is(&FINETUNE, part) {
        kinds.finetune = true;
    }
    kinds
}

/// A size part in its usual form, and whether it is the model's size (else likely a context length or a token count).
fn size(part: &str, total_params: u64) -> (String, bool) {
    let mut chars: Vec<char> = part.chars().map(|c| if c == '_' { '.' } else { c }).collect();
    // "7b1" means 7.1b. The pattern makes sure that there are two characters before a trailing digit.
    if let [.., unit, digit] = chars[..]
        && is_decimal(digit)
    {
        chars.truncate(chars.len() - 2);
        chars.extend(['.', digit, unit]);
    }
    if let [.., before, unit] = &mut chars[..]
        && is_decimal(*before)
        && "kmbt".contains(*unit)
    {
        *unit = unit.to_ascii_uppercase();
    }
    let mut is_size = true;
    if let [number @ .., unit] = &mut chars[..]
        && total_params != 0
        && let Ok(number) = number.iter().collect::<String>().parse::<f64>()
    {
        let factor = match *unit {
            'K' => 1e3,
            'M' => 1e6,
            'B' => 1e9,
            'T' => 1e12,
            _ => 1e-3, // the Kelvin sign, which matches k: `" KMBT".find` gives -1 for it
        };
        let total = total_params as f64;
        if (number * factor - total).abs() > (7 * u128::from(total_params) / 8) as f64 {
            is_size = false;
            let lower: Vec<char> = unit.to_lowercase().collect();
            chars.truncate(chars.len() - 1);
            chars.extend(lower);
        }
    }
    (chars.into_iter().collect(), is_size)
}

/// Decide which parts are the base name, and what the parts that nothing recognised are.
fn mark_basename(parts: &[String], kinds: &mut [Kinds]) {
    // "mini" and the like are no sizes where a number says the size.
    let numbered = parts.iter().zip(kinds.iter()).any(|(p, k)| k.size_label && p.chars().any(is_decimal));
    if numbered {
        for (part, kind) in parts.iter().zip(kinds.iter_mut()) {
            kind.size_label &= !is_alphabetic(part);
        }
    }
    let mut at_start = true;
    for (part, kind) in parts.iter().zip(kinds.iter_mut()) {
        let letter_first = || part.chars().next().is_some_and(|c| is_alphabetic(c.encode_utf8(&mut [0; 4])));
        if at_start && ((kind.count() == 0 && letter_first()) || kind.version) {
            kind.basename = true;
        } else {
            at_start = false;
            kind.finetune |= kind.count() == 0;
        }
    }
    // A version at the very end belongs to the model, not to its base.
    for kind in kinds.iter_mut().rev() {
        if !(kind.basename && kind.count() > 1) {
            break;
        }
        kind.basename = false;
    }
}

/// An id part as a title: dashes become spaces, words in lower case are capitalized unless they are versions or numbers
/// (gguf-py's `Metadata.id_to_title`).
pub fn title(id: &str) -> String {
    let spaced = strip(id).replace('-', " ");
    let words = spaced.split(is_space).filter(|w| !w.is_empty());
    let words: Vec<String> =
        words.map(|w| if is_lower(w) && !is(&VERSION_OR_NUMBER, w) { title_of_lower(w) } else { w.to_owned() }).collect();
    words.join(" ")
}
