//! Randomness of the operating system.

use crate::entropy::Entropy;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

/// `getrandom(2)`: fit for keys and secrets.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        let mut done = 0;
        while done < bytes.len() {
            match getrandom(&mut bytes[done..], GetRandomFlags::empty()) {
                Ok(filled) => done += filled,
                Err(Errno::INTR) => {}
                // Without randomness no secret would be one. The call exists since Linux 3.17 and has no other failure.
                Err(error) => panic!("the operating system gives no random bytes: {error}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::OsEntropy;
    use crate::entropy::Entropy;

    #[test]
    fn every_byte_is_filled() {
        let mut bytes = vec![0; 100_000];
        OsEntropy.fill(&mut bytes);
        let longest_run_of_zeros = bytes.split(|byte| *byte != 0).map(<[u8]>::len).max().unwrap();
        assert!(longest_run_of_zeros < 16);
    }
}
