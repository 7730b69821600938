//! Systematic Reed-Solomon over GF(2^8): makes the parity shards of a chunk, and any shard again from k others.
//!
//! Everything here is linear and works byte by byte: byte `x` of a shard depends on byte `x` of the others alone. So a range of
//! a shard is rebuilt from the same range of the others, and every shard is a fixed combination of k sources. `combine` is
//! that combination; what differs is only the row of coefficients. What lies beyond the chunk's end counts as zero: it is
//! neither given nor multiplied, and a data shard that is all zero is a source that one always has.
//!
//! This is the one file that knows the Reed-Solomon crate.

use crate::buffer::Buffer;
use crate::limits::DATA_SHARDS_MAX;
use crate::scheme::{ChunkLayout, Scheme};
use reed_solomon_erasure::galois_8::{ReedSolomon, mul_slice, mul_slice_xor};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// How much of each shard is worked on at a time, so that the sources and the output stay in the cache.
const COLUMN_BYTES: usize = 32 << 10;

/// Coefficients of one shard: one per source, in the sources' order; those beyond the number of sources are unused.
type Row = [u8; DATA_SHARDS_MAX as usize];

/// Why a shard can't be rebuilt from what was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ErasureError {
    #[error("{scheme} has no shard {index}")]
    NoSuchShard { index: u8, scheme: Scheme },
    #[error("bytes {offset}..{end} do not lie within a shard of {shard_bytes} bytes")]
    Range { offset: u32, end: u64, shard_bytes: u32 },
    #[error("shard {0} is given twice, or is the one that is wanted")]
    Repeated(u8),
    #[error("source {index} must have {least} to {most} bytes, not {found}")]
    SourceLength { index: u8, least: u32, most: u32, found: usize },
    #[error("shard {wanted} needs {needed} other shards to be rebuilt, but only {given} are at hand")]
    TooFew { wanted: u8, needed: usize, given: usize },
}

/// The m parity shards of a chunk, each `layout.shard_bytes()` long. None for copies, whose shards are all the chunk.
pub fn encode(layout: ChunkLayout, chunk: &[u8]) -> Vec<Buffer> {
    assert_eq!(chunk.len(), layout.chunk_bytes() as usize, "chunk of {layout:?}");
    let Some(coder) = Coder::of(layout.scheme()) else {
        return Vec::new();
    };
    let shard_bytes = layout.shard_bytes() as usize;
    let data: Vec<&[u8]> = chunk.chunks(shard_bytes).collect();
    let mut parity: Vec<Buffer> = coder.parity_rows.iter().map(|_| Buffer::with_len(shard_bytes)).collect();
    let mut columns: Vec<&[u8]> = Vec::with_capacity(data.len());
    for start in (0..shard_bytes).step_by(COLUMN_BYTES) {
        columns.clear();
        columns.extend(data.iter().map(|shard| column(shard, start)));
        for (row, output) in coder.parity_rows.iter().zip(&mut parity) {
            let end = shard_bytes.min(start + COLUMN_BYTES);
            combine(row, &columns, &mut output[start..end]);
        }
    }
    parity
}

/// Bytes `offset .. offset + len` of shard `wanted`, cut to its stored length, from the same range of k other shards.
///
/// A source that ends early counts as zero from there on, which is right only for data shards at the chunk's end, so any other
/// short source is refused. Data shards that hold nothing (`layout.is_stored` is false) need not be given. Of more sources
/// than needed, the first are used.
pub fn rebuild(layout: ChunkLayout, wanted: u8, offset: u32, len: u32, sources: &[(u8, &[u8])]) -> Result<Buffer, ErasureError> {
    let end = u64::from(offset) + u64::from(len);
    if end > u64::from(layout.shard_bytes()) {
        return Err(ErasureError::Range { offset, end, shard_bytes: layout.shard_bytes() });
    }
    check_indices(layout.scheme(), wanted, sources)?;
    let bytes = len.min(layout.stored_bytes(wanted).saturating_sub(offset));
    let sources = choose_sources(layout, wanted, offset..offset + bytes, len, sources)?;
    let row = match Coder::of(layout.scheme()) {
        Some(coder) => coder.row(layout, wanted, &sources),
        None => [1; DATA_SHARDS_MAX as usize],
    };
    let mut output = Buffer::with_len(bytes as usize);
    let mut columns: Vec<&[u8]> = Vec::with_capacity(sources.len());
    for (piece, start) in output.chunks_mut(COLUMN_BYTES).zip((0..).step_by(COLUMN_BYTES)) {
        columns.clear();
        columns.extend(sources.iter().map(|(_, shard)| column(shard, start)));
        combine(&row, &columns, piece);
    }
    Ok(output)
}

fn check_indices(scheme: Scheme, wanted: u8, sources: &[(u8, &[u8])]) -> Result<(), ErasureError> {
    let mut seen = 0u32;
    for index in std::iter::once(wanted).chain(sources.iter().map(|(index, _)| *index)) {
        if index >= scheme.shards() {
            return Err(ErasureError::NoSuchShard { index, scheme });
        }
        if seen & 1 << index != 0 {
            return Err(ErasureError::Repeated(index));
        }
        seen |= 1 << index;
    }
    Ok(())
}

/// The sources that are used: as many as it takes besides the data shards that are known to be zero. Each is cut to what its
/// shard stores of `range`, so that padding a caller may have added is not looked at.
fn choose_sources<'a>(
    layout: ChunkLayout,
    wanted: u8,
    range: std::ops::Range<u32>,
    len: u32,
    sources: &[(u8, &'a [u8])],
) -> Result<Vec<(u8, &'a [u8])>, ErasureError> {
    if range.is_empty() {
        return Ok(Vec::new());
    }
    let needed = if layout.scheme().is_copies() { 1 } else { usize::from(layout.occupied_data_shards()) };
    let stored = sources.iter().filter(|(index, _)| layout.is_stored(*index));
    let chosen: Vec<(u8, &[u8])> = stored.take(needed).copied().collect();
    if chosen.len() < needed {
        return Err(ErasureError::TooFew { wanted, needed, given: chosen.len() });
    }
    let cut = |(index, bytes): (u8, &'a [u8])| {
        let least = layout.stored_bytes(index).min(range.end).saturating_sub(range.start);
        if (least as usize..=len as usize).contains(&bytes.len()) {
            Ok((index, &bytes[..least as usize]))
        } else {
            Err(ErasureError::SourceLength { index, least, most: len, found: bytes.len() })
        }
    };
    chosen.into_iter().map(cut).collect()
}

/// The part of a shard in the column that starts at `start`; what lies beyond the shard's end is left out.
fn column(shard: &[u8], start: usize) -> &[u8] {
    let start = start.min(shard.len());
    &shard[start..shard.len().min(start + COLUMN_BYTES)]
}

/// Sets `output` to the sum of the sources, each times its coefficient. A source that is shorter counts as zero-padded.
fn combine(row: &Row, sources: &[&[u8]], output: &mut [u8]) {
    // Output bytes below `begun` hold a sum already; those from there on are garbage yet.
    let mut begun = 0;
    for (source, coefficient) in sources.iter().zip(row) {
        let len = source.len().min(output.len());
        let both = len.min(begun);
        // The kernels can't take empty slices.
        if both > 0 {
            mul_slice_xor(*coefficient, &source[..both], &mut output[..both]);
        }
        if len > begun {
            mul_slice(*coefficient, &source[begun..len], &mut output[begun..len]);
            begun = len;
        }
    }
    output[begun..].fill(0);
}

/// The code of one scheme.
struct Coder {
    code: ReedSolomon,
    /// Coefficients of each parity shard over the data shards.
    parity_rows: Vec<Row>,
}

impl Coder {
    /// The coder of a scheme, made once per process; `None` for copies and for schemes without parity: nothing to compute.
    fn of(scheme: Scheme) -> Option<Arc<Coder>> {
        static CODERS: Mutex<BTreeMap<Scheme, Arc<Coder>>> = Mutex::new(BTreeMap::new());
        if scheme.is_copies() || scheme.parity_shards() == 0 {
            return None;
        }
        // A panic inside would leave the map as it was.
        let mut coders = CODERS.lock().unwrap_or_else(PoisonError::into_inner);
        Some(coders.entry(scheme).or_insert_with(|| Arc::new(Coder::new(scheme))).clone())
    }

    fn new(scheme: Scheme) -> Self {
        let (data, parity) = (usize::from(scheme.data_shards()), usize::from(scheme.parity_shards()));
        let code = ReedSolomon::new(data, parity).expect("1 to 16 data and 1 to 4 parity shards are within the code's limits");
        // The code is linear: fed with unit vectors, it answers with its coefficients.
        let units: Vec<Row> = (0..data).map(unit).collect();
        let mut parity_rows = vec![Row::default(); parity];
        code.encode_sep(&units, &mut parity_rows).expect("the counts and lengths are those of the code");
        Self { code, parity_rows }
    }

    /// The coefficients of shard `wanted` over `sources`. Found like the parity rows: by decoding unit vectors in the place of
    /// the sources (and zero in that of the shards that hold nothing). The crate keeps the inverted matrices.
    fn row(&self, layout: ChunkLayout, wanted: u8, sources: &[(u8, &[u8])]) -> Row {
        let mut shards: Vec<(Row, bool)> =
            (0..layout.scheme().shards()).map(|index| (Row::default(), index != wanted && !layout.is_stored(index))).collect();
        for ((index, _), number) in sources.iter().zip(0..) {
            shards[usize::from(*index)] = (unit(number), true);
        }
        if !sources.is_empty() {
            self.code.reconstruct(&mut shards).expect("k shards of equal length are given");
        }
        shards[usize::from(wanted)].0
    }
}

/// The vector that is 1 at `at` and 0 elsewhere.
fn unit(at: usize) -> Row {
    let mut vector = Row::default();
    vector[at] = 1;
    vector
}

#[cfg(test)]
mod tests {
    use super::{COLUMN_BYTES, ErasureError, encode, rebuild};
    use crate::buffer::Buffer;
    use crate::scheme::{ChunkLayout, Scheme};
    use proptest::prelude::{any, prop_assert_eq, proptest};

    /// Bytes without a pattern that the code could be blind to.
    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    /// All shards of a chunk as they are stored.
    fn shards(layout: ChunkLayout, chunk: &[u8]) -> Vec<Vec<u8>> {
        let scheme = layout.scheme();
        if scheme.is_copies() {
            return vec![chunk.to_vec(); scheme.shards().into()];
        }
        let data = (0..scheme.data_shards()).map(|index| layout.data_range(index));
        let data = data.map(|range| chunk[range.start as usize..range.end as usize].to_vec());
        data.chain(encode(layout, chunk).iter().map(|parity| parity.to_vec())).collect()
    }

    /// Rebuilds bytes `offset .. offset + len` of `wanted` from the same range of the shards not in `lost`.
    fn rebuild_from(
        layout: ChunkLayout,
        shards: &[Vec<u8>],
        lost: u32,
        wanted: u8,
        offset: usize,
        len: usize,
    ) -> Result<Buffer, ErasureError> {
        let kept = (0..shards.len()).filter(|index| lost & 1 << index == 0 && layout.is_stored(*index as u8));
        let range = |shard: &Vec<u8>| offset.min(shard.len())..(offset + len).min(shard.len());
        let sources: Vec<(u8, &[u8])> = kept.map(|index| (index as u8, &shards[index][range(&shards[index])])).collect();
        rebuild(layout, wanted, offset as u32, len as u32, &sources)
    }

    /// Every combination of up to m losses; each lost shard must come back.
    fn check_all_losses(scheme: Scheme, chunk_bytes: usize) {
        let layout = scheme.layout(chunk_bytes as u32);
        let shards = shards(layout, &noise(chunk_bytes, chunk_bytes as u64));
        let len = layout.shard_bytes() as usize;
        for lost in 1u32..1 << scheme.shards() {
            if lost.count_ones() > u32::from(scheme.parity_shards()) {
                continue;
            }
            for wanted in (0..scheme.shards()).filter(|index| lost & 1 << index != 0) {
                let rebuilt = rebuild_from(layout, &shards, lost, wanted, 0, len).unwrap();
                assert!(*rebuilt == shards[usize::from(wanted)][..], "{scheme}, {chunk_bytes} bytes, lost {lost:b}, wanted {wanted}");
            }
        }
    }

    #[test]
    fn every_loss_of_every_scheme_is_repaired() {
        for data in 1..=16 {
            for parity in 0..=4 {
                let scheme = Scheme::new(data, parity).unwrap();
                // A full chunk of the smallest shards, so that each data shard holds something.
                check_all_losses(scheme, 1024 * usize::from(data) - 7);
            }
        }
    }

    #[test]
    fn every_loss_of_the_usual_schemes_is_repaired_at_corner_lengths() {
        for text in ["4+2", "2+1", "1+2", "2+2", "3+2"] {
            let scheme: Scheme = text.parse().unwrap();
            for len in [1, 2, 1023, 1024, 1025, 2048, 2049, 4095, 4096, 4097, 8191, 8192, 8193, 12_289, 65_535, 65_536, 65_537] {
                check_all_losses(scheme, len);
            }
        }
        for len in [1, 4097, 8192, 8193, 20_000] {
            check_all_losses("8+4".parse().unwrap(), len);
        }
    }

    #[test]
    fn shards_of_many_columns_are_repaired() {
        for len in [4 << 20, (4 << 20) - 1, (3 << 20) + 1, 8 * COLUMN_BYTES + 1] {
            let layout = "4+2".parse::<Scheme>().unwrap().layout(len as u32);
            let shards = shards(layout, &noise(len, 3));
            for (lost, wanted) in [(0b11, 0), (0b1100, 3), (0b100001, 0), (0b110000, 4), (0b10100, 4)] {
                let rebuilt = rebuild_from(layout, &shards, lost, wanted, 0, layout.shard_bytes() as usize).unwrap();
                assert!(*rebuilt == shards[usize::from(wanted)][..], "{len} bytes, lost {lost:b}");
            }
        }
    }

    #[test]
    fn parity_is_the_code_of_the_crate_itself() {
        let layout = "4+2".parse::<Scheme>().unwrap().layout(10_000);
        let mut chunk = noise(10_000, 9);
        let parity = encode(layout, &chunk);
        chunk.resize(4 * 4096, 0);
        let mut all: Vec<Vec<u8>> = chunk.chunks(4096).map(<[u8]>::to_vec).chain([vec![0; 4096], vec![0; 4096]]).collect();
        reed_solomon_erasure::galois_8::ReedSolomon::new(4, 2).unwrap().encode(&mut all).unwrap();
        assert!(parity.iter().map(|shard| &shard[..]).eq(all[4..].iter().map(|shard| &shard[..])));
    }

    #[test]
    fn copies_have_no_parity_and_are_rebuilt_from_any_other() {
        let layout = Scheme::copies(2).layout(5000);
        let chunk = noise(5000, 1);
        assert!(encode(layout, &chunk).is_empty());
        assert_eq!(*rebuild(layout, 0, 4096, 4096, &[(2, &chunk[4096..])]).unwrap(), chunk[4096..]);
    }

    #[test]
    fn what_a_chunk_does_not_reach_is_empty_and_needs_no_source() {
        let layout = "4+2".parse::<Scheme>().unwrap().layout(1500);
        assert!(rebuild(layout, 3, 0, 1024, &[]).unwrap().is_empty());
        let shards = shards(layout, &noise(1500, 2));
        assert!(rebuild(layout, 1, 1000, 24, &[(4, &shards[4][1000..]), (0, &shards[0][1000..])]).unwrap().is_empty());
        let tail = rebuild(layout, 1, 400, 600, &[(4, &shards[4][400..1000]), (0, &shards[0][400..1000])]).unwrap();
        assert_eq!(*tail, shards[1][400..]);
    }

    #[test]
    fn sources_that_can_not_be_right_are_refused() {
        let scheme: Scheme = "4+2".parse().unwrap();
        let layout = scheme.layout(16_384);
        let bytes = noise(4096, 5);
        let all = [(1, &bytes[..]), (2, &bytes[..]), (3, &bytes[..]), (4, &bytes[..])];
        let attempt = |sources: &[(u8, &[u8])]| rebuild(layout, 0, 0, 4096, sources).unwrap_err();
        rebuild(layout, 0, 0, 4096, &all).unwrap();
        assert_eq!(attempt(&all[1..]), ErasureError::TooFew { wanted: 0, needed: 4, given: 3 });
        assert_eq!(attempt(&[all[0], all[1], all[2], (0, &bytes)]), ErasureError::Repeated(0));
        assert_eq!(attempt(&[all[0], all[1], all[2], all[2]]), ErasureError::Repeated(3));
        assert_eq!(attempt(&[all[0], all[1], all[2], (6, &bytes)]), ErasureError::NoSuchShard { index: 6, scheme });
        let short = ErasureError::SourceLength { index: 4, least: 4096, most: 4096, found: 4095 };
        assert_eq!(attempt(&[all[0], all[1], all[2], (4, &bytes[1..])]), short);
        let outside = rebuild(layout, 0, 1, 4096, &all).unwrap_err();
        assert_eq!(outside, ErasureError::Range { offset: 1, end: 4097, shard_bytes: 4096 });
    }

    proptest! {
        #[test]
        fn any_range_is_rebuilt_from_the_same_range(
            data in 1..=16u8, parity in 1..=4u8, len in 1..200_000usize, choice in any::<[u32; 4]>(), seed in any::<u64>(),
        ) {
            let scheme = Scheme::new(data, parity).unwrap();
            let layout = scheme.layout(len as u32);
            let shards = shards(layout, &noise(len, seed));
            let wanted = (choice[0] % u32::from(scheme.shards())) as u8;
            let second_lost = choice[1] % u32::from(scheme.shards());
            let lost = 1 << wanted | if parity > 1 { 1 << second_lost } else { 0 };
            let offset = choice[2] as usize % layout.shard_bytes() as usize;
            let range_len = choice[3] as usize % (layout.shard_bytes() as usize - offset + 1);
            let rebuilt = rebuild_from(layout, &shards, lost, wanted, offset, range_len).unwrap();
            let shard = &shards[usize::from(wanted)];
            let expected = &shard[offset.min(shard.len())..(offset + range_len).min(shard.len())];
            prop_assert_eq!(&rebuilt[..], expected);
        }
    }
}
