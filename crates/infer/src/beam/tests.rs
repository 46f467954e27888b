use super::*;
use crate::toy::{Broken, Toy};
use proptest::prelude::*;

const STOP: u32 = 2;

fn run(model: &mut Toy, request: &Request, options: &Options) -> Result<Vec<Hypothesis>, BeamError<Broken>> {
    search(model, request, options, &mut |_| ControlFlow::Continue(()))
}

/// All texts of at most `limit` tokens by trying them, best first, none cut off.
fn exhaustive(model: &Toy, request: &Request, limit: usize, length_penalty: f64) -> Vec<Hypothesis> {
    let mut done = Vec::new();
    let mut open = vec![(Vec::new(), 0.0)];
    while let Some((text, sum)) = open.pop() {
        let context = [request.prompt, &text].concat();
        for (token, log) in (0..).zip(log_softmax(model.logits(&context)).unwrap()) {
            let length = text.len() + 1;
            let (mut longer, sum) = (text.clone(), sum + log);
            let score = sum / (length as f64).powf(length_penalty);
            let stop = if request.stop.contains(&token) {
                StopReason::EndOfGeneration(token)
            } else {
                longer.push(token);
                StopReason::MaxTokens
            };
            if longer.len() < length || length == limit {
                done.push(Hypothesis { tokens: longer, log_probability: sum, score, stop });
            } else {
                open.push((longer, sum));
            }
        }
    }
    done.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.tokens.cmp(&b.tokens)));
    done
}

fn table(values: &[f32]) -> Vec<f32> {
    let cells = 4 * 3 * 3;
    values.iter().copied().cycle().take(cells).collect()
}

/// After A comes 0 or 1 with 0.5 each, slightly more 0. After 0 all is equally likely, after 1 the end is certain: the best text
/// begins with the token that seems worse at first.
fn garden_path(slots: usize) -> Toy {
    let certain = [-9.0, -9.0, 9.0];
    let rows: [[f32; 3]; 3] = [[0.0; 3], certain, [0.1, 0.0, -9.0]];
    Toy::new(3, 50, slots, table(&rows.concat()))
}

const GARDEN: Request<'_> = Request { prompt: &[2], stop: &[STOP], max_tokens: 3 };

#[test]
fn beams_find_what_a_greedy_search_misses() {
    let best = |n| {
        let options = Options { beams: n, length_penalty: 0.0, early_stopping: EarlyStopping::Never };
        run(&mut garden_path(n), &GARDEN, &options).unwrap().swap_remove(0)
    };
    let truth = exhaustive(&garden_path(1), &GARDEN, 3, 0.0);
    assert_eq!((truth[0].tokens.as_slice(), truth[0].stop), (&[1][..], StopReason::EndOfGeneration(STOP)));
    assert_eq!(best(2), truth[0]);
    // The comparison can fail: one beam goes down the garden path.
    assert_ne!(best(1), truth[0]);
    assert_eq!(best(1).tokens[0], 0);
}

proptest! {
    /// Vocabulary 3, at most 3 tokens: 12 beams hold every unfinished text, so nothing may be missed; a wrong copy of a slot or a
    /// wrong early stop would show.
    #[test]
    fn equal_to_exhaustive_search(
        values in prop::collection::vec(-4.0f32..4.0, 36),
        beams in 12usize..=20,
        length_penalty in prop::sample::select(vec![-1.0, 0.0, 0.6, 1.0, 2.0]),
        limit in 1usize..=3,
        stops in prop::sample::select(vec![&[][..], &[2], &[0, 2]]),
    ) {
        let mut model = Toy::new(3, 50, beams, table(&values));
        let request = Request { prompt: &[0, 1], stop: stops, max_tokens: limit };
        let mut truth = exhaustive(&model, &request, limit, length_penalty);
        truth.truncate(beams);
        let found = run(&mut model, &request, &Options { beams, length_penalty, early_stopping: EarlyStopping::Never }).unwrap();
        prop_assert_eq!(found.len(), truth.len());
        for (found, truth) in found.iter().zip(&truth) {
            // Equal scores may come in another order.
            prop_assert!((found.score - truth.score).abs() < 1e-9, "{found:?} is not {truth:?}");
            let known = exhaustive(&model, &request, limit, length_penalty);
            let twin = known.iter().find(|t| t.tokens == found.tokens && t.stop == found.stop).unwrap();
            prop_assert!((found.score - twin.score).abs() < 1e-9 && (found.log_probability - twin.log_probability).abs() < 1e-9);
        }
    }

    #[test]
    fn one_beam_that_stops_early_is_greedy(values in prop::collection::vec(-4.0f32..4.0, 36), max_tokens in 1usize..20) {
        let request = Request { prompt: &[0], stop: &[STOP], max_tokens };
        let mut model = Toy::new(3, 12, 1, table(&values));
        let options = Options { beams: 1, length_penalty: 1.0, early_stopping: EarlyStopping::WhenFull };
        let found = run(&mut model.clone(), &request, &options).unwrap();
        let greedy = crate::sampling::Options { temperature: 0.0, ..Default::default() };
        let mut sampler = crate::sampling::Sampler::new(greedy).unwrap();
        let text = generate::generate(&mut model, &request, &mut sampler, &mut |_| ControlFlow::Continue(())).unwrap();
        prop_assert_eq!(found.len(), 1);
        prop_assert_eq!((&found[0].tokens, found[0].stop), (&text.tokens, text.stop));
    }
}

#[test]
fn a_full_context_ends_all_texts() {
    let mut model = Toy::new(3, 4, 3, table(&[0.3, 0.2, -50.0]));
    let request = Request { prompt: &[0, 1], stop: &[STOP], max_tokens: 99 };
    let found = run(&mut model, &request, &Options { beams: 3, ..Options::default() }).unwrap();
    assert_eq!(found.len(), 3);
    for hypothesis in &found {
        assert_eq!((hypothesis.tokens.len(), hypothesis.stop), (3, StopReason::ContextFull));
    }
    assert_eq!(model.slots.iter().map(Vec::len).max(), Some(4));
}

#[test]
fn early_stopping_looks_less_far() {
    let values = [1.0, 0.5, 1.2, 0.1, 0.9, 0.4, 1.1, 0.3, 0.8];
    let fed = |early_stopping| {
        let mut model = Toy::new(3, 99, 2, table(&values));
        let request = Request { prompt: &[0], stop: &[STOP], max_tokens: 30 };
        let found = run(&mut model, &request, &Options { beams: 2, length_penalty: 1.0, early_stopping }).unwrap();
        assert_eq!(found.len(), 2);
        (model.fed, found[0].score)
    };
    let (at_once, heuristic, never) = (fed(EarlyStopping::WhenFull), fed(EarlyStopping::Heuristic), fed(EarlyStopping::Never));
    assert!(at_once.0 <= heuristic.0 && heuristic.0 <= never.0 && at_once.0 < never.0, "{at_once:?} {heuristic:?} {never:?}");
    assert!(at_once.1 <= heuristic.1 && heuristic.1 <= never.1, "{at_once:?} {heuristic:?} {never:?}");
}

#[test]
fn options_out_of_range() {
    let mut model = garden_path(3);
    let refuse = |model: &mut Toy, options: Options| run(model, &GARDEN, &options).unwrap_err();
    for beams in [0, 4] {
        let error = refuse(&mut model, Options { beams, ..Options::default() });
        assert!(matches!(error, BeamError::Beams { slots: 3, .. }), "{error}");
    }
    for length_penalty in [f64::NAN, f64::INFINITY, -10.1] {
        let error = refuse(&mut model, Options { beams: 2, length_penalty, ..Options::default() });
        assert!(matches!(error, BeamError::LengthPenalty(_)), "{error}");
    }
    assert_eq!(model.fed, 0);
    let empty = Request { prompt: &[], ..GARDEN };
    assert!(matches!(
        run(&mut model, &empty, &Options { beams: 1, ..Options::default() }),
        Err(BeamError::Generate(GenerateError::EmptyPrompt))
    ));
    assert!(
        run(&mut model, &Request { max_tokens: 0, ..GARDEN }, &Options { beams: 1, ..Options::default() }).unwrap().is_empty()
    );
}

#[test]
fn nan_is_an_error_and_cancelling_keeps_what_there_is() {
    let mut model = garden_path(2);
    let options = Options { beams: 2, ..Options::default() };
    let mut calls = 0;
    let found = search(&mut model, &GARDEN, &options, &mut |progress| {
        calls += 1;
        if progress == (Progress::Beams { length: 1 }) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let texts: Vec<_> = found.unwrap().into_iter().map(|h| (h.tokens, h.stop)).collect();
    assert_eq!((texts, calls), (vec![(vec![0], StopReason::Cancelled), (vec![1], StopReason::Cancelled)], 2));

    let mut broken = garden_path(2);
    broken.table.iter_mut().for_each(|logit| *logit = f32::NAN);
    let error = run(&mut broken, &GARDEN, &options).unwrap_err();
    let BeamError::Generate(GenerateError::Sampling { position: 1, source }) = error else { panic!("{error}") };
    assert!(matches!(source, SamplingError::NotFinite { token: 0, .. }));
}

/// Texts and scores of transformers 4.57.6 on random tables: fixtures/sampling/beams.py.
#[test]
fn transformers_finds_the_same_texts() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/sampling/beams.tsv");
    let golden = std::fs::read_to_string(path).unwrap();
    let (mut texts, mut told_apart) = (0, 0);
    for line in golden.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let &[seed, beams, length_penalty, early_stopping, stop, max_tokens, found] = columns.as_slice() else {
            panic!("{line}")
        };
        let early_stopping = match early_stopping {
            "when-full" => EarlyStopping::WhenFull,
            "heuristic" => EarlyStopping::Heuristic,
            "never" => EarlyStopping::Never,
            other => panic!("{other}"),
        };
        let mut random = crate::sampling::SplitMix64::new(seed.parse().unwrap());
        let table = (0..13 * 12 * 12).map(|_| (random.unit() * 8.0 - 4.0) as f32).collect();
        let options = Options { beams: beams.parse().unwrap(), length_penalty: length_penalty.parse().unwrap(), early_stopping };
        let stop: Vec<u32> = stop.split(',').filter(|id| *id != "-").map(|id| id.parse().unwrap()).collect();
        let request = Request { prompt: &[1, 3], stop: &stop, max_tokens: max_tokens.parse().unwrap() };
        let model = Toy::new(12, 100, options.beams, table);

        let expected: Vec<(Vec<u32>, f64)> = found.split(' ').map(text_and_score).collect();
        let equal = |options: &Options| {
            let found = run(&mut model.clone(), &request, options).unwrap();
            found.len() == expected.len()
                && found.iter().zip(&expected).all(|(found, (ids, score))| {
                    let mut tokens = found.tokens.clone();
                    if let StopReason::EndOfGeneration(token) = found.stop {
                        tokens.push(token);
                    }
                    tokens == *ids && (found.score - score).abs() < 1e-5 * score.abs().max(1.0)
                })
        };
        assert!(equal(&options), "{line}: {:?}", run(&mut model.clone(), &request, &options));
        texts += expected.len();
        // The comparison can fail: another length penalty shows.
        told_apart += usize::from(!equal(&Options { length_penalty: options.length_penalty + 0.25, ..options }));
    }
    assert_eq!((golden.lines().count(), texts, told_apart), (36, 126, 36));
}

fn text_and_score(text: &str) -> (Vec<u32>, f64) {
    let (ids, score) = text.split_once(':').unwrap();
    (ids.split(',').map(|id| id.parse().unwrap()).collect(), score.parse().unwrap())
}
