//! How fast a side reads and writes, here and now.

use crate::report::Speed;
use ggufsmith_infer::{InferError, Model, Session};
use std::time::{Duration, Instant};

/// Tokens of the prompt.
pub const PROMPT: usize = 128;
/// Tokens generated behind it.
pub const GENERATED: usize = 16;
/// Rounds; their median counts.
const ROUNDS: usize = 3;
/// After this time no round, and no token behind the first, is begun: a large model is measured once, over a few tokens.
const ENOUGH: Duration = Duration::from_secs(15);

/// Read `prompt` and continue greedily, several times, on the current rayon pool.
///
/// # Errors
/// [`InferError`] where the model cannot run.
pub fn measure(model: &Model, prompt: &[u32]) -> Result<Speed, InferError> {
    let (mut read, mut written) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    for round in 0..ROUNDS {
        if round > 0 && begun.elapsed() > ENOUGH {
            break;
        }
        let mut session = Session::new(model, 1);
        let started = Instant::now();
        let mut logits = session.feed(&[(0, prompt)])?.swap_remove(0);
        read.push(prompt.len() as f64 / started.elapsed().as_secs_f64());
        for token in 0..GENERATED {
            if token > 0 && begun.elapsed() > ENOUGH {
                break;
            }
            let started = Instant::now();
            logits = session.feed(&[(0, &[most_probable(&logits)])])?.swap_remove(0);
            written.push(started.elapsed().as_secs_f64());
        }
    }
    let seconds = median(&mut written);
    Ok(Speed {
        prompt_tokens_per_second: median(&mut read),
        generated_tokens_per_second: 1.0 / seconds,
        ms_per_token: seconds * 1000.0,
    })
}

fn most_probable(logits: &[f32]) -> u32 {
    let best = logits
        .iter()
        .enumerate()
        .fold((0, f32::NEG_INFINITY), |best, (id, &logit)| if logit > best.1 { (id, logit) } else { best });
    best.0 as u32
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!((median(&mut [3.0, 1.0, 2.0]), median(&mut [4.0, 1.0, 2.0, 3.0])), (2.0, 2.5));
        assert_eq!(most_probable(&[1.0, 3.0, 3.0]), 1);
    }
}
