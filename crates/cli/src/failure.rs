//! Why a command did not do what was asked.

use std::io;

/// The end of a command that did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// Something is wrong with the input, the wishes or the machine.
    Error {
        /// What.
        error: anyhow::Error,
        /// What to do about it, where the error does not say.
        hint: Option<String>,
    },
    /// A check failed or could not run; what there is to show has been shown.
    Verdict {
        /// The exit code.
        code: u8,
        /// What standard error still says, a line each.
        problems: Vec<String>,
    },
    /// Ctrl-C or a request to terminate.
    Interrupted,
    /// Nobody reads standard output any more.
    BrokenPipe,
}

impl Failure {
    /// A failure with a message of its own.
    pub fn new(message: impl Into<String>) -> Self {
        Failure::Error { error: anyhow::Error::msg(message.into()), hint: None }
    }

    /// Add what to do about it.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        match self {
            Failure::Error { error, .. } => Failure::Error { error, hint: Some(hint.into()) },
            other => other,
        }
    }

    /// Standard output could not be written.
    pub fn stdout(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::BrokenPipe;
        }
        let error = anyhow::Error::new(error).context("writing to standard output");
        Failure::Error { error, hint: None }
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Error { error: anyhow::Error::new(error), hint: None }
    }
}

/// A message and its causes in one text. Causes that the message names already are not repeated.
pub fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_named_once() {
        let cause = io::Error::other("disk on fire");
        let error = anyhow::Error::new(cause).context("reading a: disk on fire").context("converting");
        assert_eq!(chain(&error), "converting: reading a: disk on fire");
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        assert!(matches!(Failure::stdout(io::ErrorKind::BrokenPipe.into()), Failure::BrokenPipe));
        assert!(matches!(Failure::stdout(io::ErrorKind::StorageFull.into()), Failure::Error { .. }));
    }
}
