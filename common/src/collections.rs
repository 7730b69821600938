//! Hash maps whose iteration order is the same in every run, so that a simulated world replays from its seed.
//!
//! Names that a stranger chooses must not be keys of these maps (the hash is not keyed): use a `BTreeMap` there.

/// A hash map with a fixed hash function.
pub type FastMap<K, V> = hashbrown::HashMap<K, V, foldhash::fast::FixedState>;
/// A hash set with a fixed hash function.
pub type FastSet<K> = hashbrown::HashSet<K, foldhash::fast::FixedState>;
