//! Panics: recorded instead of printed where they happen.
//!
//! Some libraries panic on damaged files; ours catch that and return an error that says so, and a panic's own text would only
//! confuse. A panic that nobody caught is a fault of this program and is reported as one.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, PoisonError};

static LAST: Mutex<Option<String>> = Mutex::new(None);

/// Record panics from now on; they are printed as well where `RUST_BACKTRACE` asks for it.
pub fn record() {
    let print = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0").then(take_hook);
    set_hook(Box::new(move |panic| {
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic.to_string());
        if let Some(print) = &print {
            print(panic);
        }
    }));
}

/// Where and why the last panic happened.
pub fn last() -> Option<String> {
    let last = LAST.lock().unwrap_or_else(PoisonError::into_inner).clone();
    last.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Run; `None` where it panics.
pub fn guard<T>(run: impl FnOnce() -> T) -> Option<T> {
    // What was changed half-way is not used any more: the process ends.
    catch_unwind(AssertUnwindSafe(run)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_and_recorded() {
        let hook = take_hook();
        record();
        let result = guard(|| panic!("the sky\nfalls"));
        set_hook(hook);
        assert_eq!(result, None);
        let last = last().unwrap();
        assert!(last.starts_with("panicked at ") && last.ends_with("the sky falls"), "{last}");
        assert_eq!(guard(|| 1), Some(1));
    }
}
