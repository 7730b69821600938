//! Growing pauses between tries.

use std::time::Duration;

/// Doubles from `first` up to `last`.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    first: Duration,
    last: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, next: first }
    }

    /// The pause before the next try.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.last);
        pause
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::Backoff;
    use std::time::Duration;

    #[test]
    fn pauses_double_up_to_the_last_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(50));
        let pauses: Vec<u128> = (0..4).map(|_| backoff.pause().as_millis()).collect();
        assert_eq!(pauses, [20, 40, 50, 50]);
        backoff.reset();
        assert_eq!(backoff.pause().as_millis(), 20);
    }
}
