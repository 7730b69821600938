//! What may be seen of something that many clients change and look at.
//!
//! A look may see the value of a change that had begun when the look ended, unless another change came in between for sure: one that began after the
//! first had ended, and ended before the look began. (What design section 5 promises of calls; the necessary half of linearizability, which for
//! values that are never used twice leaves out little.) Two looks one after the other see no change undone.
//!
//! A change of which nobody knows whether it was done counts as begun, and as never ended. So does one that was done in a memory that is lost by rights.

use std::collections::BTreeMap;

/// One value of a register. 0 is what it has at first.
pub type Value = u64;

/// A stretch of virtual time, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub begin: u64,
    pub end: u64,
}

#[derive(Debug, Clone, Copy)]
struct Change {
    client: usize,
    begin: u64,
    /// `None`: not known to be done.
    end: Option<u64>,
    /// Not only done, but out of the memory of its client.
    is_safe: bool,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    client: usize,
    value: Value,
    span: Span,
}

/// The history of one register.
#[derive(Debug, Default)]
pub struct Register {
    changes: BTreeMap<Value, Change>,
    looks: Vec<Look>,
}

impl Register {
    /// A change is about to be asked for.
    pub fn begin(&mut self, value: Value, client: usize, now: u64) {
        self.changes.insert(value, Change { client, begin: now, end: None, is_safe: false });
    }

    /// It has been done. `is_safe`: whatever happens to the client.
    pub fn done(&mut self, value: Value, now: u64, is_safe: bool) {
        if let Some(change) = self.changes.get_mut(&value) {
            (change.end, change.is_safe) = (Some(now), is_safe);
        }
    }

    /// All that this client has done is out of its memory, if it was done before `since`.
    pub fn flushed(&mut self, client: usize, since: u64) {
        let own = self.changes.values_mut().filter(|change| change.client == client);
        own.filter(|change| change.end.is_some_and(|end| end <= since)).for_each(|change| change.is_safe = true);
    }

    /// The client has lost its memory, by rights.
    pub fn lost(&mut self, client: usize) {
        let own = self.changes.values_mut().filter(|change| change.client == client && !change.is_safe);
        own.for_each(|change| change.end = None);
    }

    pub fn looked(&mut self, value: Value, client: usize, span: Span) {
        self.looks.push(Look { client, value, span });
    }

    /// What was seen and may not have been.
    pub fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        for look in &self.looks {
            if let Some(problem) = self.problem_of(look) {
                found.push(format!("client {} saw {} in {:?}, {problem}", look.client, look.value, look.span));
            }
        }
        found.extend(self.undone());
        found
    }

    fn problem_of(&self, look: &Look) -> Option<String> {
        let seen = self.begun_and_ended(look.value)?;
        if seen.0 > look.span.end {
            return Some("before it was written".to_owned());
        }
        let seen_end = seen.1?;
        let later = self.changes.iter().find(|(value, change)| {
            **value != look.value && change.begin > seen_end && change.end.is_some_and(|end| end < look.span.begin)
        });
        later.map(|(value, change)| {
            format!("although client {} had written {value} from {} to {:?}", change.client, change.begin, change.end)
        })
    }

    /// When a value was written; the first one long ago.
    fn begun_and_ended(&self, value: Value) -> Option<(u64, Option<u64>)> {
        if value == 0 { Some((0, Some(0))) } else { self.changes.get(&value).map(|change| (change.begin, change.end)) }
    }

    /// Looks that see something older than a look that had ended before.
    fn undone(&self) -> Vec<String> {
        let mut looks: Vec<&Look> = self.looks.iter().collect();
        looks.sort_by_key(|look| look.span.begin);
        let mut found = Vec::new();
        for later in &looks {
            let Some((_, Some(later_end))) = self.begun_and_ended(later.value) else { continue };
            let newer = looks.iter().find(|earlier| {
                let was_before = earlier.span.end < later.span.begin && earlier.value != later.value;
                // Its value may be lost with its client's memory, by rights.
                was_before && self.changes.get(&earlier.value).is_some_and(|change| change.begin > later_end && change.end.is_some())
            });
            if let Some(earlier) = newer {
                found.push(format!(
                    "client {} saw {} in {:?}, although client {} had seen {} in {:?}, which is newer",
                    later.client, later.value, later.span, earlier.client, earlier.value, earlier.span
                ));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::{Register, Span};

    fn written(register: &mut Register, value: u64, begin: u64, end: u64) {
        register.begin(value, 0, begin);
        register.done(value, end, false);
    }

    fn look(register: &mut Register, value: u64, begin: u64, end: u64) {
        register.looked(value, 1, Span { begin, end });
    }

    #[test]
    fn what_is_over_must_be_seen_and_what_overlaps_may_be() {
        let mut register = Register::default();
        look(&mut register, 0, 1, 2);
        written(&mut register, 1, 10, 20);
        look(&mut register, 0, 15, 25);
        look(&mut register, 1, 15, 16);
        assert_eq!(register.violations().len(), 0, "{:?}", register.violations());
        look(&mut register, 0, 21, 30);
        assert_eq!(register.violations().len(), 2, "too old, and undone");
    }

    #[test]
    fn nothing_is_seen_before_it_is_written() {
        let mut register = Register::default();
        written(&mut register, 1, 10, 20);
        look(&mut register, 1, 5, 9);
        assert_eq!(register.violations().len(), 1);
    }

    #[test]
    fn what_is_lost_by_rights_need_not_be_seen() {
        let mut register = Register::default();
        written(&mut register, 1, 10, 20);
        written(&mut register, 2, 30, 40);
        register.flushed(0, 25);
        register.lost(0);
        look(&mut register, 1, 50, 60);
        assert_eq!(register.violations(), Vec::<String>::new());
        look(&mut register, 0, 70, 80);
        assert!(!register.violations().is_empty(), "the first was flushed");
    }
}
