//! Spoils good bytes, in ways that decoders have been seen to fall for. Follows from a seed.

/// A small generator of numbers (splitmix64).
pub struct Mutator(u64);

impl Mutator {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// Bytes of nothing at all, or some of the examples, spoiled.
    pub fn input(&mut self, examples: &[Vec<u8>]) -> Vec<u8> {
        if examples.is_empty() || self.below(8) == 0 {
            let len = self.below(300);
            return (0..len).map(|_| self.next() as u8).collect();
        }
        let mut bytes = examples[self.below(examples.len())].clone();
        for _ in 0..1 + self.below(4) {
            self.spoil(&mut bytes, examples);
        }
        bytes
    }

    fn spoil(&mut self, bytes: &mut Vec<u8>, examples: &[Vec<u8>]) {
        let at = self.below(bytes.len());
        match self.below(8) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            1 if !bytes.is_empty() => bytes[at] = self.next() as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, self.next() as u8),
            // The largest numbers there are, as postcard and as fixed integers have them.
            4 => drop(bytes.splice(at..at, [0xff; 9])),
            5 => overwrite(bytes, at, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            6 => {
                let len = self.below(bytes.len() - at.min(bytes.len())).min(64);
                let part = bytes[at..at + len].to_vec();
                bytes.splice(at..at, part);
            }
            _ => {
                let other = &examples[self.below(examples.len())];
                let from = self.below(other.len());
                overwrite(bytes, at, &other[from..other.len().min(from + 16)]);
            }
        }
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    for (byte, new) in bytes.iter_mut().skip(at).zip(with) {
        *byte = *new;
    }
}
