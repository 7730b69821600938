//! Whole listings of directories, each good while the lease of its directory is held. What is good is up to the caller.

use cairn_common::ids::Ino;
use std::collections::{BTreeMap, VecDeque};

/// Listings by directory, the oldest forgotten when they have more than `capacity` entries together.
#[derive(Debug)]
pub struct Listings<L> {
    kept: BTreeMap<Ino, (u64, usize, L)>,
    order: VecDeque<(u64, Ino)>,
    inserted: u64,
    entries: usize,
    capacity: usize,
}

impl<L> Listings<L> {
    pub fn new(capacity: usize) -> Self {
        Self { kept: BTreeMap::new(), order: VecDeque::new(), inserted: 0, entries: 0, capacity }
    }

    /// A listing with so many entries. An empty one takes room, too.
    pub fn insert(&mut self, directory: Ino, entries: usize, listing: L) {
        let entries = entries + 1;
        self.remove(directory);
        if entries > self.capacity {
            return;
        }
        self.inserted += 1;
        self.order.push_back((self.inserted, directory));
        self.kept.insert(directory, (self.inserted, entries, listing));
        self.entries += entries;
        while self.entries > self.capacity || self.order.len() > 2 * self.capacity {
            let Some((number, oldest)) = self.order.pop_front() else { return };
            if self.kept.get(&oldest).is_some_and(|kept| kept.0 == number) {
                self.remove(oldest);
            }
        }
    }

    pub fn get(&self, directory: Ino) -> Option<&L> {
        self.kept.get(&directory).map(|kept| &kept.2)
    }

    pub fn remove(&mut self, directory: Ino) {
        if let Some((_, entries, _)) = self.kept.remove(&directory) {
            self.entries -= entries;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Listings;
    use cairn_common::ids::Ino;

    #[test]
    fn the_oldest_make_room_and_giants_are_not_kept() {
        let mut listings = Listings::new(10);
        listings.insert(Ino(1), 3, 'a');
        listings.insert(Ino(2), 3, 'b');
        listings.insert(Ino(1), 4, 'c');
        assert_eq!((listings.get(Ino(1)), listings.get(Ino(2))), (Some(&'c'), Some(&'b')));
        listings.insert(Ino(3), 1, 'd');
        assert_eq!(
            (listings.get(Ino(2)), listings.get(Ino(1)), listings.get(Ino(3))),
            (None, Some(&'c'), Some(&'d')),
            "the other was put in again"
        );
        listings.insert(Ino(3), 10, 'e');
        assert_eq!(listings.get(Ino(3)), None);
        for number in 0..100 {
            listings.insert(Ino(number), 0, 'f');
        }
        assert_eq!((0..100).filter(|number| listings.get(Ino(*number)).is_some()).count(), 10);
    }
}
