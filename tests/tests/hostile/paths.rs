//! Paths that name no file: FIFOs, devices, directories, links; as inputs and as outputs. And sources that change while they are read.

use crate::source::{fifo, link, plain, write};
use crate::{Verdict, bad, demand, judge, limited, text, trial};
use ggufsmith_tests::binary::{command, wait_for};
use ggufsmith_tests::random_model::Shape;
use ggufsmith_tests::{outputs, scratch};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What lies at a path that a GGUF file is expected at; the words of the refusal.
struct Thing(&'static str, fn(&Path), &'static str);

const THINGS: &[Thing] = &[
    Thing("fifo", fifo, "neither a GGUF nor a safetensors file|is not a regular file"),
    Thing("dev_zero", |path| link("/dev/zero", path), "neither a GGUF nor a safetensors file|is not a regular file"),
    Thing(
        "directory",
        |path| fs::create_dir(path).unwrap(),
        "is a directory|is not a regular file|no Hugging Face model directory",
    ),
    Thing("dangling_link", |path| link("absent", path), "there is no file|No such file"),
    Thing("loop_of_links", |path| link("input", path), "symbolic links|there is no file|No such file"),
];

/// What `--out` names, prepared in a folder beside the model; whether it is accepted, without and with `--force`.
struct Output(&'static str, fn(&Path) -> PathBuf, Result<(), &'static str>, Result<(), &'static str>);

const OUTPUTS: &[Output] = &[
    Output("directory", |dir| made(dir.join("there")), Ok(()), Ok(())),
    Output("directory_that_is_the_source", |dir| dir.join("hf"), Ok(()), Ok(())),
    Output("directory_inside_the_source", |dir| made(dir.join("hf/inside")), Ok(()), Ok(())),
    Output("directory_by_a_link", by_a_link, Ok(()), Ok(())),
    Output("directory_that_is_missing", |dir| dir.join("no/such/x.gguf"), Err("no/such"), Err("no/such")),
    Output("file", |dir| dir.join("new.gguf"), Ok(()), Ok(())),
    Output("file_that_exists", |dir| old(dir, 0o644), Err("exists"), Ok(())),
    Output("file_that_is_read_only", |dir| old(dir, 0o444), Err("exists"), Ok(())),
    Output("file_by_a_link", file_by_a_link, Err("exists"), Ok(())),
    Output("file_by_a_dangling_link", |dir| linked(dir, "absent"), Err("exists"), Ok(())),
    Output("file_by_a_loop_of_links", |dir| linked(dir, "link.gguf"), Err("exists"), Ok(())),
    Output("file_of_the_source", |dir| dir.join("hf/model.safetensors"), Err("is an input"), Err("is an input")),
    Output("fifo", a_fifo, Err("a device, a FIFO or a socket"), Err("a device, a FIFO or a socket")),
];

/// What happens to a file while it is read.
struct Change(&'static str, fn(&Path));

const CHANGES: &[Change] = &[
    Change("truncated", |path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(4096).unwrap()),
    Change("emptied", |path| fs::write(path, b"").unwrap()),
    Change("replaced", |path| {
        fs::copy(path, path.with_extension("new")).unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    }),
    Change("written_to", |path| {
        let mut bytes = fs::read(path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
    }),
    Change("removed", |path| fs::remove_file(path).unwrap()),
];

pub fn trials() -> Vec<Trial> {
    let inputs = THINGS.iter().map(|thing| trial(format!("inputs::{}", thing.0), || input(thing)));
    let outputs = OUTPUTS.iter().map(|output| trial(format!("outputs::{}", output.0), || written(output)));
    let changes = CHANGES.iter().map(|change| trial(format!("changes::shard_{}", change.0), || changed(change.1)));
    inputs.chain(outputs).chain(changes).collect()
}

/// Every command says that it is no file, at once.
fn input(Thing(_, make, words): &Thing) -> Result<(), String> {
    let folder = scratch();
    let (model, path, out) = (folder.path().join("hf"), folder.path().join("input"), folder.path().join("out"));
    plain(&model, |_| {});
    make(&path);
    let (model, path, out) = (text(&model)?, text(&path)?, text(&out)?);
    for args in [
        &["inspect", path][..],
        &["perplexity", path, "--chunks", "1"],
        &["generate", path, "To be"],
        &["quantize", path, out, "Q4_0"],
        &["export", path, "--out", out],
        &["verify", path, "--against", model, "--no-report"],
    ] {
        let run = limited(args);
        judge(&run, &bad(&["input"]))?;
        demand(words.split('|').any(|word| run.stderr.contains(word)), || run.describe(words))?;
    }
    // A model's directory is expected here.
    let run = limited(&["convert", path, "--out", out, "--type", "F16"]);
    judge(&run, &bad(&["input"]))?;
    demand(outputs::names(folder.path()) == ["hf", "input"], || format!("{:?} are there", outputs::names(folder.path())))
}

fn written(Output(_, prepare, plainly, forced): &Output) -> Result<(), String> {
    for (force, expected) in [(false, plainly), (true, forced)] {
        let folder = scratch();
        let model = folder.path().join("hf");
        plain(&model, |_| {});
        let out = prepare(folder.path());
        let before = all_names(folder.path());
        let mut args = vec!["convert", text(&model)?, "--out", text(&out)?, "--type", "F16", "--no-manifest"];
        args.extend(force.then_some("--force"));
        let run = limited(&args);
        match expected {
            Ok(()) => {
                judge(&run, &Verdict::Good)?;
                let file = if out.is_dir() { outputs::of_type(&out, "F16")? } else { out };
                let bytes = fs::read(&file).map_err(|e| e.to_string())?;
                let whole = bytes.starts_with(b"GGUF") && !file.is_symlink();
                demand(whole, || run.describe(&format!("a file at {}", file.display())))?;
            }
            Err(word) => {
                judge(&run, &bad(&[word]))?;
                demand(all_names(folder.path()) == before, || format!("{:?}, before {before:?}", all_names(folder.path())))?;
            }
        }
    }
    Ok(())
}

/// The run is stopped once it has begun to write, and goes on when the shard is another one.
fn changed(change: fn(&Path)) -> Result<(), String> {
    let folder = scratch();
    let (model, out) = (folder.path().join("hf"), folder.path().join("out"));
    Shape::of_bytes(192 << 20, 512, 2).write(&model).map_err(|e| e.to_string())?;
    fs::create_dir(&out).map_err(|e| e.to_string())?;
    // The last one, which is being read at the end only.
    let shard = model.join("model-00002-of-00002.safetensors");
    let args = ["convert", text(&model)?, "--out", text(&out)?, "--type", "Q8_0", "--threads", "1"];
    let mut child = command(&args).spawn().map_err(|e| e.to_string())?;
    let process = Pid::from_child(&child);
    let begun = Instant::now();
    while outputs::names(&out).is_empty() && child.try_wait().map_err(|e| e.to_string())?.is_none() {
        demand(begun.elapsed() < Duration::from_secs(60), || "nothing is written".to_owned())?;
        std::thread::sleep(Duration::from_millis(1));
    }
    kill_process(process, Signal::STOP).map_err(|e| format!("it has ended already: {e}"))?;
    change(&shard);
    kill_process(process, Signal::CONT).map_err(|e| e.to_string())?;
    let run = wait_for(child, &args.join(" "));
    judge(&run, &bad(&["model-00002-of-00002.safetensors"]))?;
    let words = ["no longer the file that was opened", "it changed since it was opened"];
    demand(words.iter().any(|word| run.stderr.contains(word)), || run.describe("what happened to it"))?;
    demand(outputs::names(&out).is_empty(), || format!("{:?} was left", outputs::names(&out)))
}

fn made(path: PathBuf) -> PathBuf {
    fs::create_dir(&path).unwrap();
    path
}

fn by_a_link(dir: &Path) -> PathBuf {
    made(dir.join("there"));
    linked_as(dir, "there", "link")
}

fn linked(dir: &Path, target: &str) -> PathBuf {
    linked_as(dir, target, "link.gguf")
}

fn linked_as(dir: &Path, target: &str, name: &str) -> PathBuf {
    link(target, &dir.join(name));
    dir.join(name)
}

fn file_by_a_link(dir: &Path) -> PathBuf {
    old(dir, 0o644);
    linked(dir, "old.gguf")
}

fn old(dir: &Path, mode: u32) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    write(dir, "old.gguf", b"old");
    let path = dir.join("old.gguf");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn a_fifo(dir: &Path) -> PathBuf {
    fifo(&dir.join("fifo"));
    dir.join("fifo")
}

/// Names in the folder and in the model's.
fn all_names(folder: &Path) -> Vec<String> {
    [outputs::names(folder), outputs::names(&folder.join("hf"))].concat()
}
