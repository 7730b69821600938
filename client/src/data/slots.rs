//! Where the shards of a new chunk go (design section 9: writes keep their tolerance when servers are missing). Pure.
//!
//! | usable slots | chunk | scheme |
//! |---|---|---|
//! | any number above m | tiny | `1+m` |
//! | k+m | larger | `k+m` |
//! | k/2+m, k/4+m, ... | larger | that |
//! | m+1 | any | `1+m` |
//! | 2 to m | any | `1+(usable-1)` |
//! | fewer than 2 (with m = 0: none) | any | none: wait |

use cairn_common::extent::SlotMask;
use cairn_common::ids::ChunkId;
use cairn_common::limits::{COPIES_BELOW_BYTES, SHARD_BYTES_MAX};
use cairn_common::scheme::Scheme;

/// What a writer may expect of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Usable,
    /// Its holder has no room.
    Full,
    /// Vacant, or its holder does not answer.
    Away,
}

/// What to do with a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    Put {
        scheme: Scheme,
        slots: SlotMask,
    },
    /// Only schemes with shards longer than allowed are left: cut the chunk and put the parts.
    TooLong,
    /// Enough targets answer, but so many are full that those which are away would not help.
    NoSpace,
    /// Too few targets can be reached.
    Wait,
}

/// Chooses scheme and slots for a chunk of `chunk_bytes` in a group whose slots stand like this.
pub fn choose(pool: Scheme, standings: &[Standing], chunk: ChunkId, chunk_bytes: usize) -> Choice {
    let usable = slots_that(standings, |standing| standing == Standing::Usable);
    match scheme_for(pool, usable.len(), chunk_bytes) {
        Some(scheme) if scheme.layout(chunk_bytes as u32).stored_bytes(0) as usize > SHARD_BYTES_MAX => Choice::TooLong,
        Some(scheme) => Choice::Put { scheme, slots: rotate(&usable, scheme.shards(), chunk) },
        None => {
            let has_scheme =
                |wanted: &dyn Fn(Standing) -> bool| scheme_for(pool, slots_that(standings, wanted).len(), chunk_bytes).is_some();
            // Who is away may come back, and then there is room.
            let may_fit = has_scheme(&|standing| standing != Standing::Full);
            if !may_fit && has_scheme(&|standing| standing != Standing::Away) { Choice::NoSpace } else { Choice::Wait }
        }
    }
}

fn slots_that(standings: &[Standing], wanted: impl Fn(Standing) -> bool) -> Vec<u8> {
    standings.iter().zip(0..).filter(|(standing, _)| wanted(**standing)).map(|(_, slot)| slot).collect()
}

fn scheme_for(pool: Scheme, usable: usize, chunk_bytes: usize) -> Option<Scheme> {
    let parity = pool.parity_shards();
    let mut data = if chunk_bytes < COPIES_BELOW_BYTES { 1 } else { pool.data_shards() };
    while data > 1 && usize::from(data + parity) > usable {
        data /= 2;
    }
    let spares = usize::from(parity).min(usable.checked_sub(usize::from(data))?);
    // Below one spare tolerance is gone altogether: rather wait, unless the pool never had any.
    if spares == 0 && parity > 0 {
        return None;
    }
    Scheme::new(data, spares as u8).ok()
}

/// `count` of the usable slots, beginning at one that the end of the chunk's id names (its start names the group).
fn rotate(usable: &[u8], count: u8, chunk: ChunkId) -> SlotMask {
    let first = usize::from(u16::from_be_bytes([chunk.0[30], chunk.0[31]])) % usable.len();
    SlotMask::from_slots(usable.iter().cycle().skip(first).take(count.into()).copied())
}

#[cfg(test)]
mod tests {
    use super::{Choice, Standing, choose};
    use cairn_common::ids::ChunkId;
    use cairn_common::scheme::Scheme;
    use proptest::prelude::{Strategy, any, proptest};

    const MIB: usize = 1 << 20;

    fn scheme(text: &str) -> Scheme {
        text.parse().expect("a scheme")
    }

    fn standings(text: &str) -> Vec<Standing> {
        let standing = |letter| match letter {
            'u' => Standing::Usable,
            'f' => Standing::Full,
            _ => Standing::Away,
        };
        text.chars().map(standing).collect()
    }

    fn chosen(pool: &str, slots: &str, bytes: usize) -> String {
        match choose(scheme(pool), &standings(slots), ChunkId([7; 32]), bytes) {
            Choice::Put { scheme, slots } => {
                assert_eq!(slots.count(), scheme.shards());
                scheme.to_string()
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn schemes_narrow_with_the_targets_that_are_left() {
        let large = [("uuuuuu", "4+2"), ("uuuuu-", "2+2"), ("uu-uu-", "2+2"), ("u--u-u", "1+2"), ("u----u", "1+1"), ("u-----", "Wait")];
        for (slots, expected) in large {
            assert_eq!(chosen("4+2", slots, 4 * MIB), expected, "{slots}");
        }
        assert_eq!(chosen("4+2", "uuuuuu", 1000), "1+2");
        assert_eq!(chosen("4+2", "uu----", 1000), "1+1");
        assert_eq!(chosen("4+0", "uu--", 4 * MIB), "2+0");
        assert_eq!(chosen("4+0", "u---", 1000), "1+0");
    }

    #[test]
    fn full_targets_are_told_from_missing_ones() {
        assert_eq!(chosen("4+2", "ufffff", 4 * MIB), "NoSpace");
        assert_eq!(chosen("4+2", "uffff-", 4 * MIB), "Wait");
        assert_eq!(chosen("4+2", "uuuuff", 4 * MIB), "2+2");
        assert_eq!(chosen("4+2", "u-----", 4 * MIB), "Wait");
        assert_eq!(chosen("4+2", "------", 4 * MIB), "Wait");
    }

    #[test]
    fn a_chunk_too_long_for_the_narrow_scheme_is_cut() {
        assert_eq!(chosen("8+2", "uuuuuuuuu-", 8 * MIB), "4+2");
        assert_eq!(chosen("8+2", "uuu-------", 8 * MIB), "TooLong");
        assert_eq!(chosen("8+2", "uuu-------", 4 * MIB), "1+2");
    }

    #[test]
    fn copies_spread_over_the_slots() {
        let mut uses = [0u32; 6];
        for number in 0..=u16::MAX {
            let mut id = [0; 32];
            id[30..].copy_from_slice(&number.to_be_bytes());
            let Choice::Put { slots, .. } = choose(scheme("4+2"), &standings("uuuuuu"), ChunkId(id), 100) else { panic!("usable") };
            slots.slots().for_each(|slot| uses[usize::from(slot)] += 1);
        }
        assert!(uses.iter().all(|count| count.abs_diff(uses[0]) < 100), "{uses:?}");
    }

    proptest! {
        /// Only usable slots are taken, tolerance is kept whenever m+1 slots are usable, and nothing is put without need to wait.
        #[test]
        fn tolerance_is_kept(
            data in 1u8..=16, parity in 0u8..=4,
            letters in proptest::collection::vec((0u8..3).prop_map(|kind| [Standing::Usable, Standing::Full, Standing::Away][kind as usize]), 20),
            id in any::<[u8; 32]>(), bytes in 1usize..4 * MIB,
        ) {
            let pool = Scheme::new(data, parity).expect("in range");
            let slots = &letters[..usize::from(pool.shards())];
            let usable = slots.iter().filter(|standing| **standing == Standing::Usable).count();
            match choose(pool, slots, ChunkId(id), bytes) {
                Choice::Put { scheme, slots: mask } => {
                    assert_eq!(mask.count(), scheme.shards());
                    assert!(mask.slots().all(|slot| slots[usize::from(slot)] == Standing::Usable));
                    assert!(scheme.parity_shards() == parity || usable <= usize::from(parity));
                    assert!(scheme.parity_shards() >= parity.min(1));
                }
                Choice::TooLong => panic!("no shard of 4 MiB is too long"),
                Choice::NoSpace | Choice::Wait => assert!(usable <= usize::from(parity.min(1))),
            }
        }
    }
}
