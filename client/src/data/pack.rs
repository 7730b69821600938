//! How sealed runs are gathered into chunks, and how a chunk of an awkward length is cut. Pure.

use super::limits::{OWN_CHUNK_BYTES_MIN, OWN_CHUNK_EXTENTS_MAX, RUN_EXTENTS_MAX};
use cairn_common::limits::COPIES_BELOW_BYTES;
use cairn_common::scheme::Scheme;

/// What of a run matters for packing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunShape {
    /// Bytes that are still wanted; at most a chunk.
    pub live_bytes: usize,
    /// Bytes of the run's buffer.
    pub run_bytes: usize,
    pub extents: usize,
}

impl RunShape {
    /// Long enough, in few pieces, and nothing in it is dead: the run's buffer is the chunk.
    pub fn is_own_chunk(&self) -> bool {
        self.live_bytes == self.run_bytes && self.live_bytes >= OWN_CHUNK_BYTES_MIN && self.extents <= OWN_CHUNK_EXTENTS_MAX
    }
}

/// Groups runs (by position) into chunks of at most `chunk_bytes_max`, in order. A run is never split.
pub fn group_runs(runs: &[RunShape], chunk_bytes_max: usize) -> Vec<Vec<usize>> {
    let mut packs = Vec::new();
    let mut pack = Vec::new();
    let (mut bytes, mut extents) = (0, 0);
    for (position, run) in runs.iter().enumerate() {
        if run.is_own_chunk() {
            packs.push(vec![position]);
            continue;
        }
        if !pack.is_empty() && (bytes + run.live_bytes > chunk_bytes_max || extents + run.extents > RUN_EXTENTS_MAX) {
            packs.push(std::mem::take(&mut pack));
            (bytes, extents) = (0, 0);
        }
        bytes += run.live_bytes;
        extents += run.extents;
        pack.push(position);
    }
    if !pack.is_empty() {
        packs.push(pack);
    }
    packs
}

/// Where to cut `chunk_bytes` so that parity is not mostly padding: after the largest power of two that fills every
/// data shard, if parity shards would otherwise be more than a third longer than their share. `None`: leave it whole.
pub fn cut_point(scheme: Scheme, chunk_bytes: usize) -> Option<usize> {
    if scheme.is_copies() || scheme.parity_shards() == 0 || chunk_bytes < 4 * COPIES_BELOW_BYTES {
        return None;
    }
    let data = usize::from(scheme.data_shards());
    let shard_bytes = scheme.layout(chunk_bytes as u32).shard_bytes() as usize;
    let awkward = 3 * shard_bytes * data > 4 * chunk_bytes;
    let cut = shard_bytes / 2 * data;
    (awkward && cut < chunk_bytes).then_some(cut)
}

#[cfg(test)]
mod tests {
    use super::{RunShape, cut_point, group_runs};
    use cairn_common::scheme::Scheme;
    use proptest::prelude::proptest;

    const MIB: usize = 1 << 20;

    fn shape(bytes: usize) -> RunShape {
        RunShape { live_bytes: bytes, run_bytes: bytes, extents: 1 }
    }

    #[test]
    fn many_small_files_become_one_chunk() {
        assert_eq!(group_runs(&[shape(4000); 500], 4 * MIB).len(), 1);
    }

    #[test]
    fn long_runs_stay_alone_and_dead_bytes_are_left_out() {
        let wasteful = RunShape { live_bytes: 2 * MIB, run_bytes: 3 * MIB, extents: 3 };
        let packs = group_runs(&[shape(100), shape(4 * MIB), wasteful, shape(200)], 4 * MIB);
        assert_eq!(packs, [vec![1], vec![0, 2, 3]]);
    }

    #[test]
    fn awkward_tails_are_cut() {
        let scheme = Scheme::new(4, 2).expect("in range");
        assert_eq!(cut_point(scheme, 4 * MIB), None);
        assert_eq!(cut_point(scheme, 2 * MIB + 100_000), Some(2 * MIB));
        assert_eq!(cut_point(scheme, 3 * MIB + MIB / 2), None);
        assert_eq!(cut_point(scheme, 200_000), None);
        assert_eq!(cut_point(Scheme::copies(2), 3 * MIB), None);
    }

    proptest! {
        #[test]
        fn packs_hold_each_run_once_and_fit(sizes in proptest::collection::vec(1usize..4 * MIB, 0..60)) {
            let runs: Vec<RunShape> = sizes.iter().map(|bytes| shape(*bytes)).collect();
            let packs = group_runs(&runs, 4 * MIB);
            let mut seen: Vec<usize> = packs.iter().flatten().copied().collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..runs.len()).collect::<Vec<_>>());
            for pack in packs {
                assert!(pack.iter().map(|position| sizes[*position]).sum::<usize>() <= 4 * MIB);
            }
        }

        #[test]
        fn a_cut_leaves_two_proper_parts(data in 1u8..=16, parity in 0u8..=4, bytes in 1usize..4 * MIB) {
            if let Some(cut) = cut_point(Scheme::new(data, parity).expect("in range"), bytes) {
                assert!(0 < cut && cut < bytes);
            }
        }
    }
}
