//! Counting what happens, cheaply, and showing it as Prometheus text.
//!
//! | module | noun |
//! |---|---|
//! | (here) | counts, gauges, and families of them with one closed label |
//! | [`histogram`] | how long things took |
//! | [`exposition`] | the page that Prometheus reads |
//!
//! What a request pays is a few relaxed additions: no locks, no allocation, no look-up by name. Everything else is paid by whoever asks for the page.

pub mod exposition;
pub mod histogram;

pub use exposition::Exposition;
pub use histogram::{Histogram, Latencies};

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

/// Something that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many are inside.
#[derive(Debug, Default)]
pub struct Occupancy(AtomicU64);

impl Occupancy {
    /// One more, until the result is dropped.
    pub fn enter(&self) -> Inside<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Inside(self)
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One that is inside.
pub struct Inside<'a>(&'a Occupancy);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The values that a label of a family may have: an enum without fields, made by [`labels!`](crate::labels).
pub trait Label: Copy + 'static {
    const ALL: &'static [Self];
    fn index(self) -> usize;
    fn name(self) -> &'static str;
}

/// Declares an enum whose variants are the values of a label.
#[macro_export]
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($variant),* }

        impl $crate::metrics::Label for $name {
            const ALL: &'static [Self] = &[$($name::$variant),*];

            fn index(self) -> usize {
                self as usize
            }

            fn name(self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }
        }
    };
}

/// One of `T` for each value of a label.
#[derive(Debug)]
pub struct Family<L, T> {
    each: Box<[T]>,
    label: PhantomData<fn(L)>,
}

impl<L: Label, T: Default> Default for Family<L, T> {
    fn default() -> Self {
        Self { each: L::ALL.iter().map(|_| T::default()).collect(), label: PhantomData }
    }
}

impl<L: Label, T> Family<L, T> {
    pub fn of(&self, label: L) -> &T {
        &self.each[label.index()]
    }

    pub fn iter(&self) -> impl Iterator<Item = (L, &T)> {
        L::ALL.iter().map(|label| (*label, self.of(*label)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Counter, Family, Label, Occupancy};

    labels! {
        /// For the test.
        Colour { Red = "red", Blue = "blue" }
    }

    #[test]
    fn a_family_has_one_for_each_label() {
        let family: Family<Colour, Counter> = Family::default();
        family.of(Colour::Blue).add(3);
        let all: Vec<_> = family.iter().map(|(label, counter)| (label.name(), counter.get())).collect();
        assert_eq!(all, [("red", 0), ("blue", 3)]);
    }

    #[test]
    fn who_leaves_is_counted_off() {
        let occupancy = Occupancy::default();
        let first = occupancy.enter();
        drop(occupancy.enter());
        assert_eq!(occupancy.get(), 1);
        drop(first);
        assert_eq!(occupancy.get(), 0);
    }
}
