//! Many sequences, and the shortest that could be found of those that give a difference.

use super::operation::Step;
use super::outcome::{Outcome, Record};
use super::strategy::steps;
use super::subject::Subject;
use super::tree::Tree;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Attempts to make a failing sequence shorter, and how long they may take.
const SHRINKS_MAX: u32 = 3_000;
const SHRINKING_MILLIS_MAX: u32 = 15_000;

/// How much to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    pub cases: u32,
    /// In one case, at most.
    pub steps: usize,
    /// The same seed gives the same sequences.
    pub seed: u64,
}

/// What agreed with the model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agreement {
    pub cases: u32,
    pub steps: u64,
    /// Steps that were not refused.
    pub done: u64,
}

/// What did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub reason: String,
    pub steps: Vec<Step>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.reason)?;
        writeln!(f, "after")?;
        self.steps.iter().enumerate().try_for_each(|(number, step)| writeln!(f, "  {:>2}. {step}", number + 1))
    }
}

impl Trial {
    pub fn run(self, subject: &impl Subject) -> Result<Agreement, Difference> {
        let config = Config {
            cases: self.cases,
            failure_persistence: None,
            max_shrink_iters: SHRINKS_MAX,
            max_shrink_time: SHRINKING_MILLIS_MAX,
            ..Config::default()
        };
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
        let (all, done) = (Cell::new(0), Cell::new(0));
        let attempted = runner.run(&steps(self.steps, subject.doors()), |steps| {
            let expected = compare(subject, &steps).map_err(TestCaseError::fail)?;
            all.set(all.get() + steps.len() as u64);
            done.set(done.get() + expected.outcomes.iter().filter(|outcome| !matches!(outcome, Outcome::Failed(_))).count() as u64);
            Ok(())
        });
        match attempted {
            Ok(()) => Ok(Agreement { cases: self.cases, steps: all.get(), done: done.get() }),
            Err(TestError::Fail(reason, steps)) => {
                eprintln!("a difference: {}\nlooking for a shorter way to it than {} steps", reason.message(), steps.len());
                Err(Difference { reason: reason.message().to_owned(), steps }.shortened(subject))
            }
            Err(TestError::Abort(reason)) => Err(Difference { reason: format!("given up: {reason}"), steps: Vec::new() }),
        }
    }
}

impl Difference {
    /// Leaves out steps without which there is still a difference: first many together, in the end each. Drafts shrink before, but with each that
    /// goes others are aimed elsewhere.
    fn shortened(mut self, subject: &impl Subject) -> Self {
        let mut many = self.steps.len();
        while many > 0 {
            let mut at = 0;
            while at < self.steps.len() {
                let mut fewer = self.steps.clone();
                fewer.drain(at..fewer.len().min(at + many));
                match compare(subject, &fewer) {
                    Err(reason) => self = Self { reason, steps: fewer },
                    Ok(_) => at += many,
                }
            }
            many /= 2;
        }
        self
    }
}

/// What the model says, if the subject agrees. A panic is a difference, too.
fn compare(subject: &impl Subject, steps: &[Step]) -> Result<Record, String> {
    let expected = Tree::live(steps);
    let lived = catch_unwind(AssertUnwindSafe(|| subject.live(steps)));
    let found = lived.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or_default()))
    })?;
    match found.difference(&expected, steps) {
        None => Ok(expected),
        Some(difference) => Err(difference),
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sequences agree with the model: {} calls, {} of them not refused", self.cases, self.steps, self.done)
    }
}
