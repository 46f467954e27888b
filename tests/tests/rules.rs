//! Rules of the workspace that no compiler checks: who may use whom, registries, one place for every name, documents that agree
//! with the code.
#![allow(missing_docs, reason = "tests")]

use ggufsmith_tests::binary::ggufsmith;
use ggufsmith_tests::{fixture, outputs, root};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which packages of this workspace a package may use; DESIGN.md says why. Its tests may use what stands above it too: packages are
/// published in this order.
const ARROWS: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("shaders", &[]),
    ("gguf", &["core"]),
    ("checkpoint", &["core"]),
    ("arch", &["core", "gguf"]),
    ("gpu", &["core", "shaders"]),
    ("tokenizer", &["gguf", "checkpoint", "arch"]),
    ("infer", &["core", "gguf", "checkpoint", "arch"]),
    ("convert", &["core", "gguf", "checkpoint", "arch", "tokenizer"]),
    ("verify", &["core", "gguf", "checkpoint", "arch", "tokenizer", "infer"]),
    ("hub", &[]),
    ("fuzz", &["core", "gguf", "checkpoint", "arch", "tokenizer"]),
    ("cli", &["core", "shaders", "gguf", "checkpoint", "arch", "gpu", "tokenizer", "infer", "convert", "verify", "hub"]),
    ("tests", &["core", "shaders", "gguf", "checkpoint", "arch", "gpu", "tokenizer", "infer", "convert", "verify", "hub"]),
];

/// Packages of others that one package alone may use; the end-to-end tests are no part of the product.
const CONFINED: &[(&str, &str)] = &[
    ("clap", "cli"),
    ("anyhow", "cli"),
    ("indicatif", "cli"),
    ("ctrlc", "cli"),
    ("wgpu", "gpu"),
    ("naga", "shaders"),
    ("hf-xet", "hub"),
    ("reqwest", "hub"),
];

/// Crates without `unsafe`.
const SAFE: &[&str] = &["core", "gguf", "checkpoint", "arch", "tokenizer", "convert", "verify", "hub"];

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn cargo_metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output =
        Command::new(cargo).args(["metadata", "--format-version", "1", "--no-deps", "--offline"]).current_dir(root()).output();
    let output = output.expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

/// A package's name as in the tables: its folder's.
fn short(package: &str) -> &str {
    if package == "ggufsmith" { "cli" } else { package.strip_prefix("ggufsmith-").unwrap_or(package) }
}

fn position(name: &str) -> Option<usize> {
    ARROWS.iter().position(|(known, _)| *known == name)
}

/// Every broken rule among the dependencies of the workspace's packages.
fn broken_arrows(metadata: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = text(&package["name"]);
        let name = short(&name);
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
            broken.push(format!("{name} is no known package; say in ARROWS what it may use"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = text(&dependency["name"]);
            let ours = used.starts_with("ggufsmith");
            let for_tests = dependency["kind"] == "dev" && position(short(&used)) < position(name);
            if ours && !for_tests && !allowed.contains(&short(&used)) {
                broken.push(format!("{name} may not use {}", short(&used)));
            }
            if let Some((_, owner)) = CONFINED.iter().find(|(confined, _)| *confined == used)
                && *owner != name
                && name != "tests"
            {
                broken.push(format!("{name} may not use {used}, {owner} alone does"));
            }
        }
    }
    broken
}

#[test]
fn packages_use_only_what_they_may() {
    let mut metadata = cargo_metadata();
    assert_eq!(broken_arrows(&metadata), [""; 0]);
    // The check itself.
    let packages = metadata["packages"].as_array_mut().unwrap();
    let core = packages.iter_mut().find(|package| package["name"] == "ggufsmith-core").unwrap();
    let dependencies = core["dependencies"].as_array_mut().unwrap();
    dependencies.push(serde_json::json!({"name": "ggufsmith-gguf", "kind": null}));
    dependencies.push(serde_json::json!({"name": "ggufsmith-convert", "kind": "dev"}));
    dependencies.push(serde_json::json!({"name": "clap", "kind": null}));
    let expected = ["core may not use gguf", "core may not use convert", "core may not use clap, cli alone does"];
    assert_eq!(broken_arrows(&metadata), expected);
}

/// Packages of others that a build of the binary with such features takes in.
fn third_party(features: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = ["tree", "--offline", "--package", "ggufsmith", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
    let output = Command::new(cargo).args(tree).args(features).current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let packages = String::from_utf8(output.stdout).unwrap();
    let packages = packages.lines().map(|line| line.trim_end_matches(" (*)").to_owned());
    packages.filter(|package| !package.is_empty() && !package.starts_with("ggufsmith")).collect()
}

#[test]
fn a_build_without_gpu_and_hub_is_small() {
    let small = third_party(&["--no-default-features"]);
    assert!(small.len() <= 170, "{} packages: {small:?}", small.len());
    let heavy =
        |packages: &BTreeSet<String>| packages.iter().filter(|p| p.starts_with("wgpu v") || p.starts_with("hf-xet v")).count();
    assert_eq!((heavy(&small), heavy(&third_party(&[]))), (0, 2));
}

#[test]
fn packages_share_lints_and_versions() {
    for package in cargo_metadata()["packages"].as_array().unwrap() {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let text = read(manifest);
        for line in ["version.workspace = true", "license.workspace = true", "[lints]\nworkspace = true"] {
            assert!(text.contains(line), "{} lacks {line:?}", manifest.display());
        }
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = dependency["name"].as_str().unwrap();
            let inherited = text.lines().any(|line| line.starts_with(&format!("{name} = {{ workspace = true")));
            assert!(inherited, "{}: {name} has a version of its own", manifest.display());
        }
    }
}

#[test]
fn crates_without_unsafe_say_so() {
    for name in SAFE {
        let library = root().join("crates").join(name).join("src/lib.rs");
        assert!(read(&library).contains("#![forbid(unsafe_code)]"), "{}", library.display());
    }
}

/// All Rust files below a folder.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for name in outputs::names(folder) {
        let path = folder.join(name);
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension() == Some(OsStr::new("rs")) {
            files.push(path);
        }
    }
    files
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

#[test]
fn every_format_and_family_is_registered() {
    let folder = root().join("crates/core/src/formats");
    let registry = read(&folder.join("mod.rs"));
    let mut formats = 0;
    for path in rust_files(&folder).iter().filter(|path| !path.ends_with("mod.rs")) {
        let (module, text) = (stem(path), read(path));
        for item in ["FORMAT", "ENCODER"].iter().filter(|item| text.contains(&format!("pub static {item}:"))) {
            formats += 1;
            assert!(registry.contains(&format!("&{module}::{item}")), "{}: {item} is not registered in mod.rs", path.display());
        }
    }
    assert!(formats >= 10, "only {formats} formats and encoders found");

    let folder = root().join("crates/arch/src");
    let registry = read(&folder.join("lib.rs"));
    let families = rust_files(&folder).into_iter().filter_map(|path| {
        let text = read(&path);
        let name = text.split("\nimpl Family for ").nth(1)?.split_whitespace().next()?.to_owned();
        Some((stem(&path), name))
    });
    let families: Vec<_> = families.collect();
    assert!(!families.is_empty(), "no family found");
    for (module, name) in families {
        assert!(registry.contains(&format!("&{module}::{name}")), "{module}.rs is not registered in lib.rs");
    }
}

/// A file without comments and without its test module, which by custom is the last item.
fn product_code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_name_of_a_type_is_written_in_one_file() {
    let formats = root().join("crates/core/src/formats");
    let names: BTreeSet<String> = rust_files(&formats)
        .iter()
        .filter_map(|path| {
            let name = read(path).split("name: \"").nth(1)?.split('"').next()?.to_owned();
            (name != "ggml").then_some(name)
        })
        .collect();
    assert!(names.contains("Q4_0") && names.len() >= 9, "{names:?}");
    let in_product = |path: &PathBuf| path.components().any(|c| c.as_os_str() == "src") && !path.ends_with("tests.rs");
    let files: Vec<_> = rust_files(&root().join("crates")).into_iter().filter(in_product).collect();
    let sources: Vec<_> = files.into_iter().map(|path| (product_code(&read(&path)), path)).collect();
    for name in &names {
        let literal = format!("\"{name}\"");
        let found: Vec<_> = sources.iter().filter(|(code, _)| code.contains(&literal)).map(|(_, path)| path).collect();
        // The plain floats are source element types too, under the same names.
        let allowed = if ["F32", "F16", "BF16"].contains(&name.as_str()) { 2 } else { 1 };
        assert!(found.len() <= allowed, "{literal} is written in {found:?}");
        assert!(found.iter().any(|path| path.starts_with(&formats)), "{literal}");
    }
}

#[test]
fn every_fixture_is_described() {
    let readme = read(&fixture("README.md"));
    let mut expected = BTreeSet::new();
    for name in outputs::names(&fixture("")).into_iter().filter(|name| name != "README.md" && name != "__pycache__") {
        expected.insert(if fixture(&name).is_dir() { format!("`{name}/") } else { format!("`{name}`") });
    }
    let missing: Vec<_> = expected.iter().filter(|mention| !readme.contains(mention.as_str())).collect();
    assert!(missing.is_empty(), "fixtures/README.md does not speak of {missing:?}");
}

#[test]
fn scripts_can_be_executed() {
    #[cfg(unix)]
    for name in [
        "scripts/test",
        "scripts/readme",
        "scripts/action",
        "scripts/compare-safetensors",
        ".ci/run",
        "bench/compare_llama_cpp",
        "bench/compare_perplexity",
        "bench/load_bitsandbytes",
        "bench/memory_verify",
    ] {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(root().join(name)).unwrap().permissions().mode();
        assert!(mode & 0o111 == 0o111, "{name} has mode {mode:o}");
    }
}

/// Files that a crate embeds lie inside it: what cargo packages builds by itself.
#[test]
fn embedded_files_are_packaged() {
    let mut found = 0;
    for package in cargo_metadata()["packages"].as_array().unwrap() {
        let folder = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap();
        for path in rust_files(&folder.join("src")) {
            let code = product_code(&read(&path));
            for embedded in ["include_str!(\"", "include_bytes!(\""].iter().flat_map(|call| code.split(call).skip(1)) {
                let name = embedded.split('"').next().unwrap_or_default();
                let file = path
                    .parent()
                    .unwrap()
                    .join(name)
                    .canonicalize()
                    .unwrap_or_else(|e| panic!("{}: {name}: {e}", path.display()));
                assert!(file.starts_with(folder), "{} embeds {}", path.display(), file.display());
                found += 1;
            }
        }
    }
    assert!(found > 0, "nothing is embedded anywhere");
}

#[test]
fn the_workspace_can_be_packaged() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let scratch = ggufsmith_tests::scratch();
    let mut command = Command::new(cargo);
    command.args(["package", "--workspace", "--no-verify", "--allow-dirty", "--offline", "--target-dir"]).arg(scratch.path());
    let output = command.current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The table between `<!-- NAME -->` and `<!-- /NAME -->` of README.md.
fn readme_table<'a>(readme: &'a str, name: &str) -> &'a str {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let rest = readme.split(&begin).nth(1).unwrap_or_else(|| panic!("README.md lacks {begin}"));
    rest.split(&end).next().unwrap_or_default()
}

/// README.md's tables equal what the binary lists. `scripts/readme` writes them anew.
#[test]
fn readme_tables_agree_with_the_registries() {
    let path = root().join("README.md");
    let mut readme = read(&path);
    for (name, table) in [("types", types_table()), ("architectures", architectures_table())] {
        if std::env::var_os("UPDATE_README").is_some() {
            let old = format!("<!-- {name} -->\n{}<!-- /{name} -->", readme_table(&readme, name));
            readme = readme.replace(&old, &format!("<!-- {name} -->\n{table}<!-- /{name} -->"));
            fs::write(&path, &readme).unwrap();
        }
        assert_eq!(readme_table(&readme, name), table, "README.md is behind: run scripts/readme");
    }
}

fn list(what: &str) -> Vec<Value> {
    let lists = ggufsmith(&["list", what, "--json"]).json().unwrap_or_else(|e| panic!("{e}"));
    let list = lists[what].as_array().unwrap_or_else(|| panic!("{lists}")).clone();
    assert!(!list.is_empty(), "nothing is listed as {what}");
    list
}

fn types_table() -> String {
    let mut table = String::from(
        "| `--type` | bits per weight | encode on CPU | on GPU | uses `--imatrix` | decode | same file as |\n| --- | ---: | --- | --- | --- | --- | --- |\n",
    );
    let yes = |entry: &Value| if entry.as_bool().unwrap() { "yes" } else { "-" };
    for entry in list("types") {
        let name = entry["name"].as_str().unwrap();
        let gpu = match entry["gpu_kernel"].as_str() {
            None => "-".to_owned(),
            Some(kernel) if kernel == name => "yes".to_owned(),
            Some(kernel) => format!("its {kernel}"),
        };
        let (encode, importance, decode) = (yes(&entry["encode"]), yes(&entry["importance"]), yes(&entry["decode"]));
        let (bits, tool) = (entry["bits_per_weight"].as_f64().unwrap(), entry["same_as"].as_str().unwrap_or("-"));
        table.push_str(&format!("| {name} | {bits} | {encode} | {gpu} | {importance} | {decode} | {tool} |\n"));
    }
    table
}

fn architectures_table() -> String {
    let mut table = String::from("| architecture | classes in config.json |\n| --- | --- |\n");
    for entry in list("architectures") {
        let classes: Vec<_> =
            entry["classes"].as_array().unwrap().iter().map(|class| format!("`{}`", class.as_str().unwrap())).collect();
        table.push_str(&format!("| {} | {} |\n", entry["name"].as_str().unwrap(), classes.join(", ")));
    }
    table
}

/// Every command line of README.md that calls the binary runs; its models are stood in for by a fixture.
#[test]
fn readme_examples_run() {
    let readme = read(&root().join("README.md"));
    let here = ggufsmith_tests::scratch();
    // A directory comes before a repository of the same name: no example asks the Hub.
    for folder in ["SmolLM2-135M-Instruct", "model", "HuggingFaceTB/SmolLM2-135M-Instruct"] {
        fs::create_dir_all(here.path().join(folder)).unwrap();
        for name in outputs::names(&fixture("bard")) {
            fs::copy(fixture("bard").join(&name), here.path().join(folder).join(&name)).unwrap();
        }
    }
    fs::create_dir(here.path().join("gguf")).unwrap();
    let mut ran = 0;
    let bard = fixture("bard").to_string_lossy().into_owned();
    for line in readme.lines().filter_map(|line| line.strip_prefix("$ ")) {
        let line = line.split(" #").next().unwrap_or_default().trim();
        let arguments = line.strip_prefix("ggufsmith ").or_else(|| line.strip_prefix("cargo run --release -- "));
        let Some(arguments) = arguments else { continue };
        let arguments = arguments.replace("fixtures/bard", &bard);
        let mut command = ggufsmith_tests::binary::command(&words(&arguments));
        command.current_dir(here.path());
        for name in words(&arguments).into_iter().filter(|word| word.ends_with(".gguf")) {
            stand_in(here.path(), name);
        }
        let run = ggufsmith_tests::binary::finish(command);
        run.ok().unwrap_or_else(|e| panic!("README.md: {line}\n{e}"));
        ran += 1;
    }
    assert!(ran >= 10, "only {ran} command lines in README.md");
}

/// Give a file that the README names, and that the real model would have given, the contents of one that is there: of the same type
/// where its name says one.
fn stand_in(folder: &Path, name: &str) {
    let file = folder.join(name);
    let mut written = outputs::ggufs(folder);
    written.extend(outputs::ggufs(&folder.join("gguf")));
    let ending = name.rsplit('-').next().unwrap_or(name);
    let same = written.iter().find(|(written, _)| written.ends_with(&format!("-{ending}")));
    if let (false, Some((_, written))) = (file.exists(), same.or(written.iter().next())) {
        fs::copy(written, file).unwrap();
    }
}

/// A command line's words; between double quotes spaces belong to a word.
fn words(line: &str) -> Vec<&str> {
    let parts = line.split('"').enumerate();
    parts.flat_map(|(at, part)| if at % 2 == 1 { vec![part] } else { part.split_whitespace().collect() }).collect()
}
