//! Where the kernel has each directory: the name that it was last told for it.
//!
//! It keeps a directory under one name only, and moves it when it meets it under another. While it renames between two directories it can't: that would take
//! locks which the rename holds (`d_splice_alias`). So it fails with ESTALE, lets go of all locks, and does everything once more. If another mount has moved
//! the directory, the old name must be forgotten by then.

use cairn_common::bounded::Bounded;
use cairn_common::ids::Ino;
use parking_lot::Mutex;

/// Directories of which the place is remembered. One that is not may cost a rename that fails with ESTALE, until somebody looks at the new name.
const PLACES_MAX: usize = 65_536;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub directory: Ino,
    pub name: Vec<u8>,
}

impl Place {
    pub fn new(directory: Ino, name: &[u8]) -> Self {
        Self { directory, name: name.to_vec() }
    }
}

struct Known {
    places: Bounded<Ino, Place>,
    /// The other way round. Who is not there any more has another place.
    inodes: Bounded<Place, Ino>,
}

impl Known {
    fn put(&mut self, ino: Ino, place: Place) {
        self.inodes.insert(place.clone(), ino);
        self.places.insert(ino, place);
    }

    fn take(&mut self, place: &Place) -> Option<Ino> {
        let ino = self.inodes.remove(place)?;
        let is_there = self.places.get(&ino) == Some(place);
        is_there.then(|| self.places.remove(&ino)).map(|_| ino)
    }
}

/// See the module.
pub struct Places(Mutex<Known>);

impl Default for Places {
    fn default() -> Self {
        Self(Mutex::new(Known { places: Bounded::new(PLACES_MAX), inodes: Bounded::new(PLACES_MAX) }))
    }
}

impl Places {
    /// The kernel is told of a directory under this name. If it has it in another directory, it need not follow: that is to be forgotten first.
    pub fn note(&self, ino: Ino, directory: Ino, name: &[u8]) {
        let mut known = self.0.lock();
        if known.places.get(&ino).is_none_or(|place| place.directory == directory && place.name != name) {
            known.put(ino, Place::new(directory, name));
        }
    }

    /// The kernel has renamed what may be directories.
    pub fn renamed(&self, from: Place, to: Place, is_exchange: bool) {
        let mut known = self.0.lock();
        let (moved, replaced) = (known.take(&from), known.take(&to));
        if let Some(ino) = moved {
            known.put(ino, to);
        }
        if let Some(ino) = replaced.filter(|_| is_exchange) {
            known.put(ino, from);
        }
    }

    /// The kernel does not have a directory there any more.
    pub fn forgotten(&self, ino: Ino, place: &Place) {
        let mut known = self.0.lock();
        if known.places.get(&ino) == Some(place) {
            known.take(place);
        }
    }

    /// Where it has a directory, if that is not in `directory`. Within one directory it moves it whatever it does.
    pub fn elsewhere(&self, ino: Ino, directory: Ino) -> Option<Place> {
        self.0.lock().places.get(&ino).filter(|place| place.directory != directory).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, Places};
    use cairn_common::ids::Ino;

    const DIRECTORIES: (Ino, Ino) = (Ino(2), Ino(3));

    #[test]
    fn a_directory_is_elsewhere_until_its_old_place_is_forgotten() {
        let (places, ino) = (Places::default(), Ino(7));
        let (old, new) = (Place::new(DIRECTORIES.0, b"old"), Place::new(DIRECTORIES.1, b"new"));
        assert_eq!(places.elsewhere(ino, DIRECTORIES.0), None, "the kernel does not know it");
        places.note(ino, DIRECTORIES.0, b"older");
        places.note(ino, DIRECTORIES.0, b"old");
        assert_eq!((places.elsewhere(ino, DIRECTORIES.0), places.elsewhere(ino, DIRECTORIES.1)), (None, Some(old.clone())));
        places.note(ino, DIRECTORIES.1, b"new");
        assert_eq!(places.elsewhere(ino, DIRECTORIES.1), Some(old.clone()), "the kernel may not have followed");
        places.forgotten(ino, &new);
        places.forgotten(ino, &old);
        places.note(ino, DIRECTORIES.1, b"new");
        assert_eq!((places.elsewhere(ino, DIRECTORIES.1), places.elsewhere(ino, DIRECTORIES.0)), (None, Some(new)));
    }

    #[test]
    fn a_rename_of_this_mount_moves_it() {
        let places = Places::default();
        let (here, there) = (Place::new(DIRECTORIES.0, b"x"), Place::new(DIRECTORIES.1, b"y"));
        places.note(Ino(7), here.directory, b"x");
        places.note(Ino(8), there.directory, b"y");
        places.renamed(here.clone(), there.clone(), true);
        assert_eq!(places.elsewhere(Ino(7), here.directory), Some(there.clone()));
        assert_eq!(places.elsewhere(Ino(8), there.directory), Some(here.clone()));
        places.renamed(there.clone(), here.clone(), false);
        assert_eq!(places.elsewhere(Ino(7), there.directory), Some(here.clone()));
        assert_eq!(places.elsewhere(Ino(8), Ino(9)), None, "it was replaced");
        places.renamed(there, here.clone(), false);
        assert_eq!(places.elsewhere(Ino(7), Ino(9)), None, "a file has taken its name");
    }
}
