use super::model::TextModel;
use ggufsmith_infer::InferError;
use super::run::{self, Text};
use super::*;
use clap::Parser;
use ggufsmith_infer::generate::NextToken;
use std::sync::atomic::AtomicBool;

/// Tokens are bytes; each is followed by the next one of `text`, whose last one is followed by the end, token 256.
struct Parrot {
    text: &'static [u8],
    stop: [u32; 1],
}

struct ParrotSession<'a> {
    model: &'a Parrot,
    slots: Vec<Vec<u32>>,
}

impl TextModel for Parrot {
    fn encode(&self, text: &str) -> Result<Vec<u32>, Failure> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn bytes(&self, token: u32) -> Vec<u8> {
        u8::try_from(token).into_iter().collect()
    }

    fn stop_tokens(&self) -> &[u32] {
        &self.stop
    }

    fn session(&self, slots: usize) -> Result<Box<dyn NextToken<Error = InferError> + '_>, Failure> {
        Ok(Box::new(ParrotSession { model: self, slots: vec![Vec::new(); slots] }))
    }
}

impl NextToken for ParrotSession<'_> {
    type Error = InferError;

    fn feed(&mut self, slot: usize, tokens: &[u32]) -> Result<Vec<f32>, InferError> {
        self.slots[slot].extend_from_slice(tokens);
        let next = self.model.text.get(self.slots[slot].len()).map_or(256, |&byte| usize::from(byte));
        let mut logits = vec![0.0; 257];
        logits[next] = 20.0;
        Ok(logits)
    }

    fn fork(&mut self, from: usize, to: usize) -> Result<(), InferError> {
        self.slots[to] = self.slots[from].clone();
        Ok(())
    }

    fn slots(&self) -> usize {
        self.slots.len()
    }

    fn n_ctx(&self) -> usize {
        100
    }

    fn used(&self, slot: usize) -> usize {
        self.slots[slot].len()
    }
}

static CANCEL: AtomicBool = AtomicBool::new(false);
const GREEDY: Choice = Choice::Sample(sampling::Options {
    repeat_penalty: 1.0,
    repeat_last_n: 0,
    frequency_penalty: 0.0,
    presence_penalty: 0.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    temperature: 0.0,
    seed: 0,
});

fn parrot(text: &'static str) -> Parrot {
    Parrot { text: text.as_bytes(), stop: [256] }
}

fn task(cancel: &AtomicBool) -> Task<'_> {
    Task { prompt: "Hi", max_tokens: 50, choice: GREEDY, ids: false, quiet: true, cancel }
}

/// A run and what it printed, call by call.
fn say(model: &Parrot, task: &Task) -> (Run, Vec<String>) {
    let mut said = Vec::new();
    let run = run::run(model, task, &mut |text| {
        said.push(text.to_owned());
        Ok(())
    });
    (run.unwrap(), said)
}

#[test]
fn text_streams_in_whole_characters() {
    let (run, said) = say(&parrot("Hi ü!"), &task(&CANCEL));
    assert_eq!(said, [" ", "ü", "!", "\n"]);
    let ids = vec![32, 0xC3, 0xBC, 33];
    let text = Text { text: " ü!".into(), ids, stop: "end of text", score: None, log_probability: None };
    assert_eq!((run.texts, run.cancelled), (vec![text], false));
    assert_eq!((run.prompt_ids, run.speed.prompt_tokens, run.speed.generated_tokens), (vec![72, 105], 2, 3));

    let (run, said) = say(&parrot("Hi ü!"), &Task { max_tokens: 2, ..task(&CANCEL) });
    assert_eq!((said.concat().as_str(), run.texts[0].stop), (" \u{fffd}\n", "--max-tokens reached"));
    let (_, said) = say(&parrot("Hi a\n"), &task(&CANCEL));
    assert_eq!(said.concat(), " a\n", "no second line break");
    let (run, said) = say(&parrot("Hi"), &task(&CANCEL));
    assert_eq!((said.len(), run.texts[0].text.as_str()), (0, ""));
}

#[test]
fn ids_instead_of_text() {
    let (run, said) = say(&parrot("Hi ü"), &Task { ids: true, ..task(&CANCEL) });
    assert_eq!((said.concat().as_str(), run.texts[0].text.as_str()), ("32\n195\n188\n", " ü"));
}

#[test]
fn beams_come_with_headings() {
    let options = beam::Options { beams: 2, ..beam::Options::default() };
    let (run, said) = say(&parrot("Hi you"), &Task { choice: Choice::Beams(options), ..task(&CANCEL) });
    assert!(said[0].starts_with("--- 1 of 2: score -0.00") && said[0].ends_with(", end of text\n you\n"), "{said:?}");
    assert_eq!((said.len(), run.texts.len(), run.texts[0].text.as_str()), (2, 2, " you"));
    assert!(run.texts[0].score > run.texts[1].score && run.texts[0].log_probability < Some(0.0));
}

#[test]
fn closed_pipes_and_interrupts_end_it() {
    let broken = run::run(&parrot("Hi you"), &task(&CANCEL), &mut |_| Err(Failure::BrokenPipe));
    assert!(matches!(broken, Err(Failure::BrokenPipe)));
    let cancel = AtomicBool::new(true);
    let (run, said) = say(&parrot("Hi you"), &task(&cancel));
    assert!(run.cancelled && said.is_empty());
    assert_eq!(run.texts[0].stop, "interrupted");
}

#[test]
fn where_texts_part() {
    let compare = |a: &'static str, b: &'static str| {
        let models = [parrot(a), parrot(b)];
        let runs = [0, 1].map(|side| say(&models[side], &task(&CANCEL)).0);
        let comparison = Comparison::new([&models[0], &models[1]], [&runs[0], &runs[1]]);
        (comparison.line(["a", "b"]), comparison.identical)
    };
    assert_eq!(compare("Hi you", "Hi you"), ("the same text: 4 tokens".to_owned(), true));
    let parted = r#"the first 2 tokens are the same; then a says "o" (111), b says "e" (101)"#;
    assert_eq!(compare("Hi you", "Hi yes"), (parted.to_owned(), false));
    let ended = r#"the first 4 tokens are the same; then a ends, b says "r" (114)"#;
    assert_eq!(compare("Hi you", "Hi your"), (ended.to_owned(), false));
}

#[test]
fn prompts_of_other_tokenizers_are_not_compared() {
    let (model, (run, _)) = (parrot("Hi you"), say(&parrot("Hi you"), &task(&CANCEL)));
    let other = Run { prompt_ids: vec![1, 72, 105], ..run.clone() };
    let comparison = Comparison::new([&model, &model], [&run, &other]);
    assert!(!comparison.same_prompt_ids && comparison.line(["a", "b"]).starts_with("the tokenizers differ"));
}

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    arguments: Arguments,
}

fn parse(arguments: &[&str]) -> Result<Arguments, clap::Error> {
    Command::try_parse_from(["generate", "m.gguf"].iter().chain(arguments)).map(|command| command.arguments)
}

#[test]
fn arguments_become_options() {
    let options = |arguments: &[&str]| parse(arguments).unwrap().choice();
    let Ok(Choice::Sample(greedy)) = options(&["Hi"]) else { panic!() };
    assert_eq!(greedy, sampling::Options { temperature: 0.0, ..sampling::Options::default() });
    let given = ["Hi", "--temp", "0.5", "--top-k", "7", "--top-p", "0.25", "--min-p", "0.5", "--seed", "9"];
    let more = ["--repeat-penalty", "1.5", "--repeat-last-n", "3", "--frequency-penalty", "-0.5", "--presence-penalty", "0.75"];
    let Ok(Choice::Sample(all)) = options(&[&given[..], &more].concat()) else { panic!() };
    let expected = sampling::Options {
        repeat_penalty: 1.5,
        repeat_last_n: 3,
        frequency_penalty: -0.5,
        presence_penalty: 0.75,
        top_k: 7,
        top_p: 0.25,
        min_p: 0.5,
        temperature: 0.5,
        seed: 9,
    };
    assert_eq!(all, expected);
    let Ok(Choice::Beams(beams)) = options(&["Hi", "--beams", "3", "--length-penalty", "-0.5"]) else { panic!() };
    assert_eq!((beams.beams, beams.length_penalty), (3, -0.5));
    let Err(Failure::Error { error, .. }) = options(&["Hi", "--top-p", "0"]) else { panic!() };
    assert!(error.to_string().starts_with("--top-p 0 is out of range"), "{error}");
}

#[test]
fn arguments_that_contradict_each_other() {
    for wrong in [&[][..], &["Hi", "-f", "x"], &["Hi", "--beams", "0"], &["Hi", "--length-penalty", "1"], &["Hi", "--n-ctx", "0"]] {
        assert!(parse(wrong).is_err(), "{wrong:?}");
    }
    for name in Tokens::NAMES {
        let flag = format!("--{}", name.replace('_', "-"));
        let error = parse(&["Hi", "--beams", "2", &flag, "1"]).unwrap_err();
        assert_eq!(error.kind(), clap::error::ErrorKind::ArgumentConflict, "{flag}");
    }
}

#[test]
fn useless_flags_are_told() {
    let told = |arguments: &[&str]| parse(arguments).unwrap().tokens.without_effect();
    let warning = "--top-k, --seed changes nothing at temperature 0; add --temperature 0.8";
    assert_eq!(told(&["Hi", "--seed", "1", "--top-k", "3"]).as_deref(), Some(warning));
    assert_eq!(told(&["Hi", "--seed", "1", "--temperature", "0.1"]), None);
    assert_eq!(told(&["Hi", "--repeat-penalty", "1.1"]), None);
}

#[test]
fn prompt_files_lose_one_line_break() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prompt.txt");
    let read = |content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        parse(&["-f", path.to_str().unwrap()]).unwrap().prompt()
    };
    for (content, prompt) in [("a\n\n", "a\n"), ("a\r\n", "a"), ("a", "a"), ("", ""), ("\ta ", "\ta ")] {
        assert_eq!(read(content.as_bytes()).unwrap(), prompt);
    }
    let Err(Failure::Error { error, .. }) = read(b"ab\xffc") else { panic!() };
    assert!(error.to_string().ends_with("prompt.txt: not UTF-8 from byte 2 on"), "{error}");
    assert!(parse(&["-f", dir.path().to_str().unwrap()]).unwrap().prompt().is_err());
}
