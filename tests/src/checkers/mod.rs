//! One promise, one file: each looks at what an inspection has found and says what breaks its promise.

pub mod accounting;
pub mod closed;
pub mod fsynced;
pub mod namespace;
pub mod redundancy;
pub mod referenced;
pub mod unreferenced;

use crate::simulation::history::History;
use crate::simulation::inspection::Findings;

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub checker: &'static str,
    pub text: String,
}

type Checker = fn(&History, &Findings) -> Vec<String>;

const CHECKERS: [(&str, Checker); 7] = [
    ("fsynced", fsynced::check),
    ("closed", closed::check),
    ("namespace", namespace::check),
    ("referenced", referenced::check),
    ("unreferenced", unreferenced::check),
    ("redundancy", redundancy::check),
    ("accounting", accounting::check),
];

/// What all checkers find.
pub fn check_all(history: &History, findings: &Findings) -> Vec<Violation> {
    let found = CHECKERS.iter().flat_map(|(checker, check)| check(history, findings).into_iter().map(|text| (*checker, text)));
    found.map(|(checker, text)| Violation { checker, text }).collect()
}
