//! A small cache with a bound on weight and no clock: two generations. New and wanted entries are in the young one; when it
//! has filled its half of the bound it becomes the old one, and what was old and not wanted meanwhile is forgotten.

use std::collections::BTreeMap;

/// Keeps at least the last entries used up to half its capacity, and never more than its capacity.
#[derive(Debug)]
pub struct Cache<K, V> {
    young: BTreeMap<K, (V, usize)>,
    old: BTreeMap<K, (V, usize)>,
    young_weight: usize,
    capacity: usize,
}

impl<K: Ord + Copy, V: Clone> Cache<K, V> {
    /// `capacity` counts whatever the weights count.
    pub fn new(capacity: usize) -> Self {
        Self { young: BTreeMap::new(), old: BTreeMap::new(), young_weight: 0, capacity }
    }

    pub fn get(&mut self, key: &K) -> Option<V> {
        if let Some((value, _)) = self.young.get(key) {
            return Some(value.clone());
        }
        let (value, weight) = self.old.remove(key)?;
        self.insert(*key, value.clone(), weight);
        Some(value)
    }

    pub fn insert(&mut self, key: K, value: V, weight: usize) {
        self.remove(&key);
        if weight > self.capacity / 2 {
            return;
        }
        if self.young_weight + weight > self.capacity / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_weight = 0;
        }
        self.young_weight += weight;
        self.young.insert(key, (value, weight));
    }

    pub fn remove(&mut self, key: &K) {
        if let Some((_, weight)) = self.young.remove(key) {
            self.young_weight -= weight;
        }
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_bound_holds() {
        let mut cache = Cache::new(100);
        for round in 0..1000_u32 {
            cache.insert(round, round, 10);
            assert_eq!(cache.get(&0), Some(0), "used in every round");
            assert!(cache.young.len() + cache.old.len() <= 10);
        }
        assert_eq!(cache.get(&500), None);
        assert_eq!(cache.get(&999), Some(999));
    }

    #[test]
    fn removed_entries_are_gone_and_heavy_ones_never_come() {
        let mut cache = Cache::new(100);
        cache.insert(1, 'a', 10);
        cache.insert(1, 'b', 20);
        assert_eq!(cache.get(&1), Some('b'));
        cache.remove(&1);
        assert_eq!((cache.get(&1), cache.young_weight), (None, 0));
        cache.insert(2, 'c', 51);
        assert_eq!(cache.get(&2), None);
    }
}
