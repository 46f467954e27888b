//! Names that somebody may have meant.

/// Longer names are not compared: the effort grows with the square of the length.
const MAX_CHARS: usize = 128;
/// Names offered at most.
const MAX_OFFERED: usize = 3;

/// Up to three of `known` that are nearest to `wanted`, nearest first: at most a third of its letters differ, whatever their
/// case (Levenshtein distance).
pub fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let wanted: Vec<char> = wanted.to_lowercase().chars().collect();
    if wanted.len() > MAX_CHARS {
        return Vec::new();
    }
    let distance = |name: &'a str| (distance(&wanted, &name.to_lowercase().chars().collect::<Vec<_>>()), name);
    let mut near: Vec<_> = known.into_iter().map(distance).filter(|(d, _)| *d <= wanted.len() / 3).collect();
    near.sort_by_key(|(distance, _)| *distance); // stable: ties stay in the order of `known`
    near.into_iter().take(MAX_OFFERED).map(|(_, name)| name).collect()
}

/// The fewest insertions, deletions and replacements that turn `a` into `b`.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let distance = |a: &str, b: &str| distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("abc", "acb"), 2);
    }

    #[test]
    fn near_names_come_first_and_far_ones_not_at_all() {
        let known = ["LlamaForCausalLM", "MistralForCausalLM", "T5Encoder"];
        assert_eq!(nearest("LLaMaForCausalLM", known), ["LlamaForCausalLM"]);
        assert_eq!(nearest("MixtralForCausalLM", known), ["MistralForCausalLM", "LlamaForCausalLM"]);
        assert!(nearest("BertModel", known).is_empty());
        assert!(nearest(&"x".repeat(1 << 20), known).is_empty());
    }
}
