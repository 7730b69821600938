//! What could not be done: each thing is told on standard error as it happens, and counted for the exit code.

use cairn_objects::Failure;
use parking_lot::Mutex;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Debug, Default)]
struct Counts {
    failed: u64,
    is_muted: bool,
    /// Instead of 0 or 1.
    code: Option<u8>,
}

/// The failures of a command. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Mutex<Counts>>);

impl Tally {
    /// One that counts for itself and says nothing.
    pub fn muted(&self) -> Self {
        Self(Arc::new(Mutex::new(Counts { is_muted: true, ..Counts::default() })))
    }

    pub fn failed(&self, failure: &Failure) {
        self.0.lock().failed += 1;
        self.warn(&failure.to_string());
    }

    /// Tells, and does not count.
    pub fn warn(&self, sentence: &str) {
        if self.0.lock().is_muted {
            return;
        }
        // Whoever reads standard error may be gone.
        let _ = writeln!(std::io::stderr(), "cairn: {sentence}");
    }

    /// What a thing came to, if it came to anything.
    pub fn take<T>(&self, result: Result<T, Failure>) -> Option<T> {
        result.map_err(|failure| self.failed(&failure)).ok()
    }

    /// The command ends with this code, whatever else happens.
    pub fn end_with(&self, code: u8) {
        self.0.lock().code = Some(code);
    }

    pub fn exit_code(&self) -> ExitCode {
        let counts = self.0.lock();
        let code = counts.code.unwrap_or(if counts.failed > 0 { 1 } else { 0 });
        ExitCode::from(code)
    }
}
