use super::*;
use crate::sampling::Options;
use crate::toy::{Broken, Toy};

const GREEDY: Options = Options {
    repeat_penalty: 1.0,
    repeat_last_n: 64,
    frequency_penalty: 0.0,
    presence_penalty: 0.0,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.0,
    temperature: 0.0,
    seed: 0,
};

fn run(model: &mut Toy, request: &Request, options: Options) -> Result<Generation, GenerateError<Broken>> {
    generate(model, request, &mut Sampler::new(options).unwrap(), &mut |_| ControlFlow::Continue(()))
}

fn counting(n_ctx: usize) -> Toy {
    Toy::chain(10, n_ctx, |last| (last + 1) % 10)
}

#[test]
fn goes_on_until_a_token_that_ends_it() {
    let mut model = counting(100);
    let request = Request { prompt: &[7, 2, 3], stop: &[0, 8], max_tokens: 50 };
    let generation = run(&mut model, &request, GREEDY).unwrap();
    assert_eq!(generation, Generation { tokens: vec![4, 5, 6, 7], stop: StopReason::EndOfGeneration(8) });
    assert_eq!((model.slots[0].as_slice(), model.fed), (&[7, 2, 3, 4, 5, 6, 7][..], 7), "every token goes in once");
}

#[test]
fn max_tokens_and_no_tokens() {
    let mut model = counting(100);
    let request = Request { prompt: &[1], stop: &[], max_tokens: 3 };
    let generation = run(&mut model, &request, GREEDY).unwrap();
    assert_eq!(generation, Generation { tokens: vec![2, 3, 4], stop: StopReason::MaxTokens });
    assert_eq!(model.slots[0], [1, 2, 3], "the last token is not fed");
    // The conversation goes on behind it.
    let generation = run(&mut model, &Request { prompt: &[4, 6], stop: &[8], max_tokens: 3 }, GREEDY).unwrap();
    assert_eq!(generation, Generation { tokens: vec![7], stop: StopReason::EndOfGeneration(8) });

    let mut untouched = counting(100);
    let generation = run(&mut untouched, &Request { max_tokens: 0, ..request }, GREEDY).unwrap();
    assert_eq!((generation.tokens.len(), generation.stop, untouched.fed), (0, StopReason::MaxTokens, 0));
}

#[test]
fn a_full_context_ends_it_cleanly() {
    let mut model = counting(5);
    let generation = run(&mut model, &Request { prompt: &[0, 1, 2], stop: &[], max_tokens: 50 }, GREEDY).unwrap();
    assert_eq!(generation, Generation { tokens: vec![3, 4, 5], stop: StopReason::ContextFull });
    assert_eq!(model.used(0), 5);

    let mut model = counting(3);
    let generation = run(&mut model, &Request { prompt: &[0, 1, 2], stop: &[], max_tokens: 50 }, GREEDY).unwrap();
    assert_eq!(generation, Generation { tokens: vec![3], stop: StopReason::ContextFull });
}

#[test]
fn prompts_that_cannot_be_continued() {
    let mut model = counting(3);
    let error = run(&mut model, &Request { prompt: &[], stop: &[], max_tokens: 1 }, GREEDY).unwrap_err();
    assert!(matches!(error, GenerateError::EmptyPrompt));
    let error = run(&mut model, &Request { prompt: &[1; 4], stop: &[], max_tokens: 1 }, GREEDY).unwrap_err();
    assert!(matches!(error, GenerateError::PromptTooLong { tokens: 4, room: 3 }));
    assert_eq!(model.fed, 0);
    run(&mut model, &Request { prompt: &[1], stop: &[], max_tokens: 1 }, GREEDY).unwrap();
    let error = run(&mut model, &Request { prompt: &[1; 3], stop: &[], max_tokens: 1 }, GREEDY).unwrap_err();
    assert!(matches!(error, GenerateError::PromptTooLong { tokens: 3, room: 2 }));
}

#[test]
fn callers_hear_everything_and_can_stop() {
    let prompt = vec![0; PROMPT_CHUNK + 1];
    let total = prompt.len();
    let request = Request { prompt: &prompt, stop: &[4], max_tokens: 50 };
    let said = |stop_at: usize| {
        let (mut model, mut said) = (counting(1000), Vec::new());
        let mut sampler = Sampler::new(GREEDY).unwrap();
        let generation = generate(&mut model, &request, &mut sampler, &mut |progress| {
            said.push(progress);
            if said.len() == stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        (said, generation.unwrap(), model.fed)
    };
    let all = [
        Progress::Prompt { done: PROMPT_CHUNK, total },
        Progress::Prompt { done: total, total },
        Progress::Token(1),
        Progress::Token(2),
        Progress::Token(3),
    ];
    let (heard, generation, _) = said(usize::MAX);
    assert_eq!((heard.as_slice(), generation.stop), (&all[..], StopReason::EndOfGeneration(4)));
    for (stop_at, tokens, fed) in [(1, 0, PROMPT_CHUNK), (2, 0, total), (3, 1, total), (4, 2, total + 1)] {
        let (heard, generation, was_fed) = said(stop_at);
        assert_eq!((heard.as_slice(), generation.stop), (&all[..stop_at], StopReason::Cancelled));
        assert_eq!((generation.tokens.len(), was_fed), (tokens, fed));
    }
}

#[test]
fn penalties_see_the_prompt() {
    // 3 follows 2 by a logit of 9 against 0 for all others; having occurred in the prompt costs it 10.
    let options = Options { frequency_penalty: 10.0, ..GREEDY };
    let request = Request { prompt: &[3, 2], stop: &[], max_tokens: 1 };
    assert_eq!(run(&mut counting(9), &request, GREEDY).unwrap().tokens, [3]);
    assert_eq!(run(&mut counting(9), &request, options).unwrap().tokens, [0]);
}

#[test]
fn nan_names_its_place_and_failures_pass_through() {
    let mut model = counting(100);
    model.table[(4 * 10 + 4) * 10 + 1] = f32::NAN; // behind 3, 4: the logit of 1
    let error = run(&mut model, &Request { prompt: &[2], stop: &[], max_tokens: 9 }, GREEDY).unwrap_err();
    assert!(matches!(error, GenerateError::Sampling { position: 3, source: SamplingError::NotFinite { token: 1, .. } }));
    assert!(error.to_string().starts_with("token 3 of the text: the model computed NaN"), "{error}");

    struct Fails(Toy);
    impl NextToken for Fails {
        type Error = Broken;
        fn feed(&mut self, slot: usize, tokens: &[u32]) -> Result<Vec<f32>, Broken> {
            if self.0.fed > 2 { Err(Broken("disk on fire")) } else { self.0.feed(slot, tokens) }
        }
        fn fork(&mut self, from: usize, to: usize) -> Result<(), Broken> {
            self.0.fork(from, to)
        }
        fn slots(&self) -> usize {
            self.0.slots()
        }
        fn n_ctx(&self) -> usize {
            self.0.n_ctx()
        }
        fn used(&self, slot: usize) -> usize {
            self.0.used(slot)
        }
    }
    let model: &mut dyn NextToken<Error = Broken> = &mut Fails(counting(100)); // as trait object, too
    let mut sampler = Sampler::new(GREEDY).unwrap();
    let request = Request { prompt: &[2], stop: &[], max_tokens: 9 };
    let error = generate(model, &request, &mut sampler, &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(error, GenerateError::Model(Broken("disk on fire"))));
}

/// A drawn text is that of another run with the same seed, and not that of another seed.
#[test]
fn seeds_repeat() {
    let table = (0..11 * 10 * 10u32).map(|i| (i * 7919 % 31) as f32 / 10.0).collect::<Vec<_>>();
    let text = |seed| {
        let mut model = Toy::new(10, 100, 1, table.clone());
        let request = Request { prompt: &[1], stop: &[], max_tokens: 40 };
        run(&mut model, &request, Options { temperature: 1.0, seed, ..GREEDY }).unwrap().tokens
    };
    assert_eq!(text(7), text(7));
    assert_ne!(text(7), text(8));
}
