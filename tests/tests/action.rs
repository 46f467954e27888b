//! The GitHub Action: its file, and its steps run here with a stand-in for the binary that writes down how it was called.

use ggufsmith_tests::{fixture, outputs, root, scratch};
use libyaml_safer::{Event, EventData, Parser};
use serde_json::{Map, Value};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// A YAML file of ours: mappings, lists and strings, no anchors.
fn yaml(name: &str) -> Value {
    fn node(parser: &mut Parser<std::io::Cursor<Vec<u8>>>, event: Event) -> Value {
        match event.data {
            EventData::Scalar { value, .. } => Value::String(value),
            EventData::SequenceStart { .. } => {
                let mut list = Vec::new();
                loop {
                    let next = parser.parse().unwrap();
                    if matches!(next.data, EventData::SequenceEnd) {
                        return Value::Array(list);
                    }
                    list.push(node(parser, next));
                }
            }
            EventData::MappingStart { .. } => {
                let mut map = Map::new();
                loop {
                    let next = parser.parse().unwrap();
                    if matches!(next.data, EventData::MappingEnd) {
                        return Value::Object(map);
                    }
                    let key = node(parser, next).as_str().unwrap().to_owned();
                    let next = parser.parse().unwrap();
                    let value = node(parser, next);
                    assert!(map.insert(key.clone(), value).is_none(), "{key} is there twice");
                }
            }
            other => panic!("{other:?}"),
        }
    }
    let text = fs::read(root().join(name)).unwrap();
    let mut parser = Parser::new();
    parser.set_input(std::io::Cursor::new(text));
    loop {
        let event = parser.parse().unwrap();
        if matches!(event.data, EventData::MappingStart { .. }) {
            return node(&mut parser, event);
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What is wrong with the action's file.
fn faults(action: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let script = fs::read_to_string(root().join("scripts/action")).unwrap();
    let inputs = action["inputs"].as_object().unwrap();
    let mut used = action["outputs"].to_string();
    for step in action["runs"]["steps"].as_array().unwrap() {
        let run = text(&step["run"]);
        let uses = text(&step["uses"]);
        used.push_str(&step.to_string());
        if !run.is_empty() {
            // A value inside of a script would be read as a command.
            if run.contains("${{") {
                faults.push(format!("a value inside of {run}"));
            }
            let step_name = run.strip_prefix("\"$GITHUB_ACTION_PATH/scripts/action\" ").unwrap_or_default();
            if step_name.is_empty() || !script.contains(&format!("#   {step_name} ")) {
                faults.push(format!("no step of scripts/action: {run}"));
            }
            if text(&step["shell"]) != "bash" {
                faults.push(format!("no shell for {run}"));
            }
            for (name, value) in step["env"].as_object().into_iter().flatten() {
                let input = name.strip_prefix("INPUT_").unwrap_or_default().to_lowercase().replace('_', "-");
                if text(value) != format!("${{{{ inputs.{input} }}}}") || !inputs.contains_key(&input) {
                    faults.push(format!("{name} is {value}"));
                }
                if !script.contains(name.as_str()) {
                    faults.push(format!("scripts/action does not read {name}"));
                }
            }
        } else if !uses.starts_with("actions/") || !uses.contains('@') {
            faults.push(format!("uses {uses}"));
        }
    }
    faults
        .extend(inputs.keys().filter(|name| !used.contains(&format!("inputs.{name}"))).map(|name| format!("{name} is not used")));
    faults
}

#[test]
fn the_action_is_consistent() {
    let mut action = yaml("action.yml");
    assert_eq!(text(&action["runs"]["using"]), "composite");
    assert_eq!(faults(&action), [""; 0]);
    // The check itself.
    action["runs"]["steps"][0]["run"] = Value::from("cargo install ${{ inputs.version }}");
    action["runs"]["steps"][1]["env"]["INPUT_TYPES"] = Value::from("${{ inputs.type }}");
    action["inputs"]["unused"] = Value::Null;
    assert_eq!(faults(&action).len(), 5, "{:?}", faults(&action));
}

#[test]
fn the_example_may_only_read() {
    let workflow = yaml(".github/workflows/verify-example.yml");
    assert_eq!(workflow["permissions"], serde_json::json!({"contents": "read"}));
    let inputs = yaml("action.yml")["inputs"].clone();
    let jobs = workflow["jobs"].as_object().unwrap();
    let steps: Vec<&Value> = jobs.values().flat_map(|job| job["steps"].as_array().unwrap()).collect();
    let ours = steps.iter().find(|step| text(&step["uses"]) == "./").unwrap();
    for (name, value) in ours["with"].as_object().unwrap() {
        assert!(!inputs[name].is_null(), "{name}");
        if text(value).starts_with("fixtures/") {
            assert!(root().join(text(value)).exists(), "{value}");
        }
    }
    assert!(steps.iter().all(|step| step["run"].is_null()), "the example calls the action and nothing else");
}

/// Run a step with a `ggufsmith` first in the path that is a script.
fn step(name: &str, folder: &Path, stand_in: &str, inputs: &[(&str, &str)]) -> Output {
    let bin = folder.join("bin");
    fs::create_dir_all(&bin).unwrap();
    let binary = bin.join("ggufsmith");
    fs::write(&binary, format!("#!/bin/bash\nprintf '%s\\n' \"$*\" >> \"{}\"\n{stand_in}\n", folder.join("calls").display()))
        .unwrap();
    #[cfg(unix)]
    fs::set_permissions(&binary, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(root().join("scripts/action"));
    command.arg(name).current_dir(folder).env("PATH", path).env_remove("GITHUB_STEP_SUMMARY");
    command.envs(inputs.iter().map(|(key, value)| (format!("INPUT_{key}"), *value))).output().unwrap()
}

fn calls(folder: &Path) -> Vec<String> {
    fs::read_to_string(folder.join("calls")).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn steps_call_the_binary_as_asked() {
    let scratch = scratch();
    let folder = scratch.path();
    assert!(step("install", folder, "", &[("VERSION", "")]).status.success(), "it is there already");
    let inputs = [("SOURCE", "my model"), ("TYPES", "Q8_0  Q4_0"), ("OUT", "out"), ("CONVERT_ARGS", "--force")];
    assert!(step("convert", folder, "", &inputs).status.success());
    for name in ["a.gguf", "b $(touch evil).gguf", "c-00001-of-00002.gguf", "c-00002-of-00002.gguf"] {
        fs::write(folder.join("out").join(name), "").unwrap();
    }
    let inputs =
        [("SOURCE", "m"), ("OUT", "out"), ("REPORT_DIR", "reports"), ("TEXT", "a;b"), ("MAX_KLD", "0.1"), ("MIN_TOP1", "0.9")];
    assert_eq!(step("verify", folder, "exit 1", &inputs).status.code(), Some(1), "verify's own exit code");
    let more = [("MAX_PPL_RATIO", "1.1"), ("CONFIG", "verify.toml"), ("VERIFY_ARGS", "--n-ctx 256")];
    assert!(step("verify", folder, "", &[&inputs[..3], &more].concat()).status.success());
    let files = "out/a.gguf out/b $(touch evil).gguf out/c-00001-of-00002.gguf --against m --report-dir reports";
    let expected = [
        "convert my model --out out --type Q8_0 --type Q4_0 --force".to_owned(),
        format!("verify {files} --text a;b --max-kld 0.1 --min-top1 0.9"),
        format!("verify {files} --max-ppl-ratio 1.1 --config verify.toml --n-ctx 256"),
    ];
    assert_eq!(calls(folder), expected);
    assert!(!folder.join("evil").exists());
    assert_eq!(step("convert", folder, "", &[("SOURCE", "m")]).status.code(), Some(2));
    assert_eq!(step("verify", folder, "", &[("SOURCE", "m"), ("OUT", "none"), ("REPORT_DIR", "r")]).status.code(), Some(2));
    assert_eq!(step("else", folder, "", &[]).status.code(), Some(2));
}

#[test]
fn the_summary_is_the_report_about_all_files() {
    let scratch = scratch();
    let folder = scratch.path();
    let summary = || String::from_utf8(step("summary", folder, "", &[("REPORT_DIR", "reports")]).stdout).unwrap();
    assert!(summary().contains("There is no report"));
    fs::create_dir(folder.join("reports")).unwrap();
    fs::write(folder.join("reports/a.gguf.report.md"), "one\n").unwrap();
    assert_eq!(summary(), "one\n");
    fs::write(folder.join("reports/source.report.md"), "all\n").unwrap();
    assert_eq!(summary(), "all\n");
}

/// One bit of difference after the way there and back is found.
#[test]
fn the_round_trip_compares_every_bit() {
    let scratch = scratch();
    let folder = scratch.path();
    let bard = fixture("bard");
    let export = format!(
        "[[ $1 == export ]] && {{ mkdir -p \"$4\"; cp {}/*.safetensors \"$4\"; }}; [[ $1 != convert ]] || touch \"$6/x.gguf\"",
        bard.display()
    );
    let inputs = [("SOURCE", bard.to_str().unwrap()), ("ROUND_TRIP", "BF16")];
    let good = step("round-trip", folder, &export, &inputs);
    assert!(good.status.success(), "{good:?}");
    let made = calls(folder);
    assert!(
        made[0].starts_with("convert ") && made[0].contains(" --type BF16 --out ") && made[1].starts_with("export "),
        "{made:?}"
    );

    let copy = folder.join("copy");
    fs::create_dir(&copy).unwrap();
    let name = outputs::names(&bard).into_iter().find(|name| name.ends_with(".safetensors")).unwrap();
    let mut bytes = fs::read(bard.join(&name)).unwrap();
    let compare = |bytes: &[u8]| {
        fs::write(copy.join(&name), bytes).unwrap();
        let output =
            Command::new("python3").arg(root().join("scripts/compare-safetensors")).args([&bard, &copy]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(compare(&bytes).0, Some(0));
    *bytes.last_mut().unwrap() ^= 1;
    let (code, said) = compare(&bytes);
    assert!(code == Some(1) && said.contains("has other bytes") && said.contains(" 1 differences"), "{said}");
    assert_eq!(compare(&bytes[..100]).0, Some(2));
    assert!(step("round-trip", folder, "exit 3", &[("SOURCE", "m"), ("ROUND_TRIP", "")]).status.success(), "none was asked for");
}
