//! Sums that come to zero if what is counted in one table is what another table says, for all subjects at once.
//!
//! A subject (an inode, a chunk) falls into a bucket by its hash; a weight counts times an odd factor that is drawn from the hash, too. One
//! subject whose weights do not come to zero always shows. Several wrong ones in one bucket cancel out by chance in one of about
//! 2^47 cases.

use std::hash::{DefaultHasher, Hash, Hasher};

/// How many buckets there are. More take memory, and make the second reading look at fewer subjects that are fine.
pub const BUCKETS: usize = if cfg!(test) { 4 } else { 1 << 16 };

/// The same in every run.
pub fn hash_of(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[derive(Clone, Copy)]
struct Bucket<const SUMS: usize> {
    sums: [u64; SUMS],
    subjects: u64,
    is_accused: bool,
}

/// `SUMS` sums for each bucket.
pub struct Balance<const SUMS: usize> {
    buckets: Vec<Bucket<SUMS>>,
}

impl<const SUMS: usize> Default for Balance<SUMS> {
    fn default() -> Self {
        Self { buckets: vec![Bucket { sums: [0; SUMS], subjects: 0, is_accused: false }; BUCKETS] }
    }
}

fn bucket_of(hash: u64) -> usize {
    (hash >> 48) as usize % BUCKETS
}

impl<const SUMS: usize> Balance<SUMS> {
    /// Adds a weight (modulo 2^64) to one of the sums of a subject.
    pub fn add(&mut self, subject: impl Hash, sum: usize, weight: u64) {
        let hash = hash_of(subject);
        let entry = &mut self.buckets[bucket_of(hash)].sums[sum];
        *entry = entry.wrapping_add(weight.wrapping_mul(hash | 1));
    }

    /// Takes a weight off.
    pub fn take(&mut self, subject: impl Hash, sum: usize, weight: u64) {
        self.add(subject, sum, weight.wrapping_neg());
    }

    /// There is such a subject.
    pub fn count(&mut self, subject: impl Hash) {
        self.buckets[bucket_of(hash_of(subject))].subjects += 1;
    }

    /// The subject is to be looked at, whatever its sums are.
    pub fn accuse(&mut self, subject: impl Hash) {
        self.buckets[bucket_of(hash_of(subject))].is_accused = true;
    }

    /// The buckets that are not in balance, in portions of at most `limit` subjects or else one bucket.
    pub fn suspects(&self, limit: u64) -> Vec<Suspects> {
        let mut portions: Vec<(Suspects, u64)> = Vec::new();
        for (number, bucket) in self.buckets.iter().enumerate() {
            if bucket.sums == [0; SUMS] && !bucket.is_accused {
                continue;
            }
            match portions.last_mut() {
                Some((last, subjects)) if *subjects + bucket.subjects <= limit => {
                    last.buckets.push(number as u32);
                    *subjects += bucket.subjects;
                }
                _ => portions.push((Suspects { buckets: vec![number as u32] }, bucket.subjects)),
            }
        }
        portions.into_iter().map(|(suspects, _)| suspects).collect()
    }
}

/// Some of the buckets.
pub struct Suspects {
    /// In order.
    buckets: Vec<u32>,
}

impl Suspects {
    pub fn contain(&self, subject: impl Hash) -> bool {
        self.buckets.binary_search(&(bucket_of(hash_of(subject)) as u32)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Balance;

    #[test]
    fn only_what_is_wrong_is_suspect() {
        let mut balance: Balance<2> = Balance::default();
        for subject in 0..1000u64 {
            balance.count(subject);
            balance.add(subject, 0, subject + 5);
            balance.take(subject, 0, 5);
            balance.take(subject, 0, subject);
        }
        assert!(balance.suspects(100).is_empty());
        balance.add(7u64, 1, 1);
        let suspects = balance.suspects(100);
        assert!(suspects.len() == 1 && suspects[0].contain(7u64));
        assert!((0..1000u64).any(|subject| !suspects[0].contain(subject)));
        balance.take(7u64, 1, 1);
        assert!(balance.suspects(100).is_empty());
    }

    #[test]
    fn suspects_come_in_portions() {
        let mut balance: Balance<1> = Balance::default();
        for subject in 0..100u64 {
            balance.count(subject);
            balance.accuse(subject);
        }
        assert_eq!((balance.suspects(1).len(), balance.suspects(100).len()), (super::BUCKETS, 1));
        let portions = balance.suspects(50);
        assert!((0..100u64).all(|subject| portions.iter().filter(|portion| portion.contain(subject)).count() == 1));
    }
}
