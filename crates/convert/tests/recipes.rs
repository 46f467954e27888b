//! Every decision of `llama-quantize` on 12 model shapes and 35 file types: `fixtures/recipes/decisions.tsv`.
#![allow(missing_docs, reason = "tests")]

use ggufsmith_arch::RecipeInputs;
use ggufsmith_convert::recipe::{self, Choices, Context, QuantizeTensor, RECIPES, RecipeError, decide_quantize};
use ggufsmith_core::Format;
use std::collections::BTreeMap;
use std::path::Path;

struct Model {
    name: String,
    arch: String,
    inputs: RecipeInputs,
    tensors: Vec<(String, Vec<u64>, &'static Format)>,
    /// File type to one letter a tensor, in the order of `tensors`.
    types: Vec<(String, String)>,
}

struct Golden {
    codes: BTreeMap<char, String>,
    models: Vec<Model>,
}

fn golden() -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/recipes/decisions.tsv");
    let text = std::fs::read_to_string(path).unwrap();
    let mut golden = Golden { codes: BTreeMap::new(), models: Vec::new() };
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields.as_slice() {
            ["codes", codes @ ..] => {
                let code = |code: &&str| (code.chars().next().unwrap(), code[2..].to_owned());
                golden.codes = codes.iter().map(code).collect();
            }
            ["model", name, arch, figures @ ..] => {
                let [n_layer, n_head, n_head_kv, n_expert] = figures.iter().map(|f| f.parse().unwrap()).collect::<Vec<_>>()[..]
                else {
                    panic!("{line}")
                };
                let inputs = RecipeInputs { n_layer, n_head, n_head_kv, n_expert };
                let (name, arch) = ((*name).to_owned(), (*arch).to_owned());
                golden.models.push(Model { name, arch, inputs, tensors: Vec::new(), types: Vec::new() });
            }
            ["tensor", name, shape, stored] => {
                let shape = shape.rsplit('x').map(|d| d.parse().unwrap()).collect();
                let stored = recipe::format_by_name(stored).unwrap();
                golden.models.last_mut().unwrap().tensors.push(((*name).to_owned(), shape, stored));
            }
            ["type", name, letters] => {
                golden.models.last_mut().unwrap().types.push(((*name).to_owned(), (*letters).to_owned()));
            }
            _ => panic!("{line}"),
        }
    }
    golden
}

/// In the order of the walk.
fn sorted(model: &Model) -> Vec<usize> {
    let block = |name: &str| name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    let mut order: Vec<usize> = (0..model.tensors.len()).collect();
    order.sort_by_key(|&i| (block(&model.tensors[i].0), &model.tensors[i].0));
    order
}

fn decide(model: &Model, file_type: &str) -> Result<Vec<&'static str>, RecipeError> {
    let order = sorted(model);
    let tensor = |&i: &usize| {
        let (name, shape, stored) = &model.tensors[i];
        QuantizeTensor { name, shape, stored }
    };
    let tensors: Vec<_> = order.iter().map(tensor).collect();
    let context = Context { arch: &model.arch, inputs: model.inputs, imatrix: false };
    let decisions = decide_quantize(recipe::by_name(file_type).unwrap(), context, &Choices::default(), &tensors)?;
    let mut names = vec![""; order.len()];
    for (&i, decision) in order.iter().zip(decisions) {
        assert!(!decision.rule.is_empty());
        names[i] = decision.format.name;
    }
    Ok(names)
}

/// Decisions compared, and those that differ.
fn compare(golden: &Golden) -> (usize, Vec<String>) {
    let (mut compared, mut different) = (0, Vec::new());
    for model in &golden.models {
        for (file_type, letters) in &model.types {
            let decided = decide(model, file_type);
            if letters == "refused" {
                match decided {
                    Err(RecipeError::NoFallback { .. }) => {}
                    other => different.push(format!("{} {file_type}: {other:?}", model.name)),
                }
                continue;
            }
            let decided = decided.unwrap_or_else(|e| panic!("{} {file_type}: {e}", model.name));
            assert_eq!(decided.len(), letters.len());
            for ((found, letter), (tensor, _, _)) in decided.iter().zip(letters.chars()).zip(&model.tensors) {
                compared += 1;
                let expected = &golden.codes[&letter];
                if found != expected {
                    different.push(format!("{} {file_type} {tensor}: {found}, llama-quantize {expected}", model.name));
                }
            }
        }
    }
    (compared, different)
}

#[test]
fn every_decision_is_llama_quantizes() {
    let mut golden = golden();
    let (compared, different) = compare(&golden);
    assert_eq!(different, [""; 0]);
    assert_eq!((golden.models.len(), compared), (12, 121_773));
    for model in &golden.models {
        let mut names: Vec<_> = model.types.iter().map(|(name, _)| name.as_str()).collect();
        let mut known: Vec<_> = RECIPES.iter().map(recipe::FileType::name).collect();
        names.sort_unstable();
        known.sort_unstable();
        assert_eq!(names, known, "{}", model.name);
    }

    // The comparison itself: one letter is changed.
    let (_, letters) = golden.models[3].types.iter_mut().find(|(name, _)| name == "Q4_K_M").unwrap();
    let other = if letters.starts_with('t') { "u" } else { "t" };
    letters.replace_range(..1, other);
    let (_, different) = compare(&golden);
    assert_eq!(different.len(), 1, "{different:?}");
}
