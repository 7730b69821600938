//! A map that forgets what was put in first when it is full.

use std::collections::{BTreeMap, VecDeque};

/// Invariant: it holds no more than `capacity` keys; what was put in again counts as new.
#[derive(Debug)]
pub struct Bounded<K, V> {
    slots: BTreeMap<K, (u64, V)>,
    /// Every insertion with its number, the oldest first; those replaced or removed since do not count any more.
    order: VecDeque<(u64, K)>,
    inserted: u64,
    capacity: usize,
}

impl<K: Ord + Clone, V> Bounded<K, V> {
    pub fn new(capacity: usize) -> Self {
        Self { slots: BTreeMap::new(), order: VecDeque::new(), inserted: 0, capacity: capacity.max(1) }
    }

    pub fn insert(&mut self, key: K, value: V) {
        self.inserted += 1;
        self.order.push_back((self.inserted, key.clone()));
        self.slots.insert(key, (self.inserted, value));
        while self.order.len() > self.capacity {
            let Some((number, oldest)) = self.order.pop_front() else { break };
            if self.slots.get(&oldest).is_some_and(|slot| slot.0 == number) {
                self.slots.remove(&oldest);
            }
        }
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.slots.get(key).map(|slot| &slot.1)
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.slots.get_mut(key).map(|slot| &mut slot.1)
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.slots.remove(key).map(|slot| slot.1)
    }
}

#[cfg(test)]
mod tests {
    use super::Bounded;
    use proptest::prelude::{any, proptest};

    #[test]
    fn the_oldest_goes_first() {
        let mut map = Bounded::new(2);
        map.insert('a', 1);
        map.insert('b', 2);
        map.insert('c', 3);
        assert_eq!((map.get(&'a'), map.get(&'b'), map.get(&'c')), (None, Some(&2), Some(&3)));
        map.insert('b', 4);
        map.insert('d', 5);
        assert_eq!((map.get(&'b'), map.get(&'c'), map.get(&'d')), (Some(&4), None, Some(&5)), "what was put in again is new");
    }

    proptest! {
        #[test]
        fn it_stays_bounded_and_never_shows_an_old_value(steps in proptest::collection::vec((any::<bool>(), 0u8..20), 0..300)) {
            let mut map = Bounded::new(8);
            let mut newest = [None; 20];
            for (number, (insert, key)) in steps.into_iter().enumerate() {
                if insert {
                    map.insert(key, number);
                    newest[usize::from(key)] = Some(number);
                    assert_eq!(map.get(&key), Some(&number));
                } else {
                    map.remove(&key);
                    newest[usize::from(key)] = None;
                }
                let kept = (0..20u8).filter_map(|key| map.get(&key).map(|value| (key, *value)));
                let kept: Vec<(u8, usize)> = kept.collect();
                assert!(kept.len() <= 8);
                assert!(kept.iter().all(|(key, value)| newest[usize::from(*key)] == Some(*value)));
            }
        }
    }
}
