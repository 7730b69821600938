//! What went wrong with which thing, as a sentence for whoever typed the command.

use cairn_common::error::FsError;
use std::fmt::Display;
use std::io;

/// One thing that could not be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {reason}")]
pub struct Failure {
    /// A path, as the user knows it.
    pub object: String,
    pub reason: Reason,
}

/// Why not. What the caller may do next differs: see [`Reason::may_pass`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("there is no bucket {0}: make it with `cairn mb cairn://{0}`")]
    NoBucket(String),
    #[error("{}", sentence_of(*.0))]
    Fs(FsError),
    /// Of a file on this machine.
    #[error("{text}")]
    Local { kind: io::ErrorKind, text: String },
    #[error("it changed while it was being copied: copy it again")]
    Changed,
    #[error("what arrived is not what was sent: {0}")]
    Mismatch(String),
    #[error("interrupted")]
    Interrupted,
    #[error("{0}")]
    Said(String),
}

impl Reason {
    /// Whether the same command may succeed later without anybody changing anything: then what was done so far is worth keeping.
    pub fn may_pass(&self) -> bool {
        matches!(self, Reason::Interrupted | Reason::Fs(FsError::Io | FsError::Interrupted))
    }

    pub fn is_not_found(&self) -> bool {
        match self {
            Reason::Fs(error) => *error == FsError::NotFound,
            Reason::Local { kind, .. } => *kind == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

impl From<FsError> for Reason {
    fn from(error: FsError) -> Self {
        Reason::Fs(error)
    }
}

impl From<io::Error> for Reason {
    fn from(error: io::Error) -> Self {
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        let mut letters = text.chars();
        let text = letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default();
        Reason::Local { kind: error.kind(), text }
    }
}

impl From<rustix::io::Errno> for Reason {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}

impl Failure {
    pub fn new(object: impl Display, reason: impl Into<Reason>) -> Self {
        Self { object: object.to_string(), reason: reason.into() }
    }

    pub fn said(object: impl Display, sentence: impl Into<String>) -> Self {
        Self::new(object, Reason::Said(sentence.into()))
    }
}

/// Names the thing that an error is about.
pub trait At<T> {
    fn at(self, object: impl Display) -> Result<T, Failure>;
}

impl<T, E: Into<Reason>> At<T> for Result<T, E> {
    fn at(self, object: impl Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(object, error))
    }
}

/// The library's errors in the words of a user. Those that need no more words say it themselves.
fn sentence_of(error: FsError) -> String {
    match error {
        FsError::NotFound => "there is no such file or directory".to_owned(),
        FsError::NotDirectory => "it is not a directory, or something on the way to it is none".to_owned(),
        FsError::IsDirectory => "it is a directory".to_owned(),
        FsError::NoSpace => "no space is left in the cluster".to_owned(),
        FsError::Stale => "it was removed meanwhile".to_owned(),
        FsError::Io => "the cluster could not do it in time: too few of its servers answer (see `cairn status`)".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{At, Reason};
    use cairn_common::error::FsError;
    use std::io;

    #[test]
    fn failures_are_sentences_without_numbers() {
        let local: Result<(), _> = Err(io::Error::from_raw_os_error(28));
        assert_eq!(local.at("/disk/x").unwrap_err().to_string(), "/disk/x: no space left on device");
        let remote: Result<(), _> = Err(FsError::NoSpace);
        assert_eq!(remote.at("cairn://b/x").unwrap_err().to_string(), "cairn://b/x: no space is left in the cluster");
        assert!(Reason::Interrupted.may_pass() && !Reason::from(FsError::NoSpace).may_pass());
    }
}
