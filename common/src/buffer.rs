//! Page-aligned byte buffers, taken from a pool of the whole process and given back when they are dropped.
//!
//! Alignment matters: a copy to an address just past a page start runs several times slower on current AMD, and FUSE and
//! O_DIRECT want whole pages. The pool matters because fresh memory costs a page fault for each 4 KiB.
//!
//! Invariants: a buffer's bytes are always initialised; `len() <= capacity()`; the pool holds at most `RETAINED_BYTES_MAX`.

use bytemuck::{Pod, Zeroable};
use bytes::Bytes;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// Alignment of every buffer, and its smallest capacity.
pub const PAGE_BYTES: usize = 4096;
/// Largest capacity that is pooled; longer buffers are allocated and freed each time.
pub const POOLED_BYTES_MAX: usize = 16 << 20;
/// What the pool keeps at most; beyond it, buffers of the size that takes the most room are freed.
pub const RETAINED_BYTES_MAX: usize = 128 << 20;

/// One class per power of two from a page to `POOLED_BYTES_MAX`.
const CLASSES: usize = (POOLED_BYTES_MAX / PAGE_BYTES).ilog2() as usize + 1;

static POOL: Mutex<Pool> = Mutex::new(Pool::new());

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

/// A page-aligned, writable run of bytes. Its first contents are whatever the pool left there.
pub struct Buffer {
    pages: Vec<Page>,
    len: usize,
}

impl Buffer {
    /// A buffer of `len` bytes with unspecified (but initialised) contents.
    pub fn with_len(len: usize) -> Self {
        let pages = match len {
            0 => Vec::new(),
            _ => match class_of(len) {
                Some(class) => lock_pool().take(class).unwrap_or_else(|| new_pages(1 << class)),
                None => new_pages(len.div_ceil(PAGE_BYTES)),
            },
        };
        Self { pages, len }
    }

    /// A buffer with a copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Self::with_len(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }

    /// How far the length may be raised again by a new buffer of the same memory: whole pages.
    pub fn capacity(&self) -> usize {
        self.pages.len() * PAGE_BYTES
    }

    /// Shortens the buffer to `len` bytes; does nothing if it is shorter already.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Makes the bytes immutable and shareable; the memory goes back to the pool with the last clone.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let pages = std::mem::take(&mut self.pages);
        if pages.is_empty() || !pages.len().is_power_of_two() || pages.len() * PAGE_BYTES > POOLED_BYTES_MAX {
            return;
        }
        let evicted = lock_pool().give_back(pages);
        // Freed here, when the lock is open again: giving megabytes back to the kernel takes a while.
        drop(evicted);
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.pages)[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.pages)[..self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} of {} bytes)", self.len, self.capacity())
    }
}

/// Memory that nobody uses at the moment, by size: class `c` holds runs of `1 << c` pages.
struct Pool {
    classes: [Vec<Vec<Page>>; CLASSES],
    retained_bytes: usize,
}

impl Pool {
    const fn new() -> Self {
        Self { classes: [const { Vec::new() }; CLASSES], retained_bytes: 0 }
    }

    /// The run that came back last, for it is the likeliest to be in the cache.
    fn take(&mut self, class: usize) -> Option<Vec<Page>> {
        let pages = self.classes[class].pop()?;
        self.retained_bytes -= pages.len() * PAGE_BYTES;
        Some(pages)
    }

    /// Keeps `pages` and returns what must be freed instead, so that the limit holds.
    fn give_back(&mut self, pages: Vec<Page>) -> Vec<Vec<Page>> {
        let class = pages.len().ilog2() as usize;
        self.retained_bytes += pages.len() * PAGE_BYTES;
        self.classes[class].push(pages);
        let mut evicted = Vec::new();
        while self.retained_bytes > RETAINED_BYTES_MAX {
            let Some(freed) = (0..CLASSES).max_by_key(|&class| self.classes[class].len() << class).and_then(|class| self.take(class))
            else {
                break;
            };
            evicted.push(freed);
        }
        evicted
    }
}

/// The size class of a buffer of `len` bytes; `None` if it is too long to be pooled.
fn class_of(len: usize) -> Option<usize> {
    let pages = len.div_ceil(PAGE_BYTES).next_power_of_two();
    (pages * PAGE_BYTES <= POOLED_BYTES_MAX).then(|| pages.ilog2() as usize)
}

fn new_pages(count: usize) -> Vec<Page> {
    vec![Page::zeroed(); count]
}

fn lock_pool() -> std::sync::MutexGuard<'static, Pool> {
    // A panic between two statements of the pool leaves at worst a wrong count of retained bytes.
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Buffer, PAGE_BYTES, POOLED_BYTES_MAX, Pool, RETAINED_BYTES_MAX, class_of, new_pages};

    #[test]
    fn a_buffer_is_aligned_and_as_long_as_asked() {
        for len in [0, 1, 4095, 4096, 4097, 65_536, 1 << 20, (1 << 20) + 1, POOLED_BYTES_MAX + 1] {
            let mut buffer = Buffer::with_len(len);
            assert_eq!(buffer.len(), len);
            assert!(buffer.capacity() >= len);
            buffer.fill(7);
            assert!(len == 0 || buffer.as_ptr().addr().is_multiple_of(PAGE_BYTES), "{len}");
            assert!(buffer.iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn truncating_and_freezing_keep_the_bytes() {
        let mut buffer = Buffer::copy_of(b"one two three");
        buffer.truncate(7);
        buffer.truncate(100);
        let start = buffer.as_ptr();
        let frozen = buffer.freeze();
        assert_eq!(frozen.as_ptr(), start, "freezing must not copy");
        let tail = frozen.slice(4..);
        drop(frozen);
        assert_eq!(&tail[..], b"two");
    }

    #[test]
    fn classes_are_powers_of_two() {
        assert_eq!(class_of(1), Some(0));
        assert_eq!(class_of(4096), Some(0));
        assert_eq!(class_of(4097), Some(1));
        assert_eq!(class_of(POOLED_BYTES_MAX), Some(super::CLASSES - 1));
        assert_eq!(class_of(POOLED_BYTES_MAX + 1), None);
    }

    #[test]
    fn the_pool_hands_out_again_what_came_back_last() {
        let mut pool = Pool::new();
        let (first, second) = (new_pages(2), new_pages(2));
        let second_start = second.as_ptr();
        assert!(pool.give_back(first).is_empty() && pool.give_back(second).is_empty());
        assert!(pool.take(0).is_none(), "a class must not hand out another's memory");
        let taken = pool.take(1).unwrap();
        assert_eq!(taken.as_ptr(), second_start);
        assert_eq!(pool.retained_bytes, 2 * PAGE_BYTES);
    }

    #[test]
    fn the_pool_frees_the_size_that_takes_the_most_room() {
        let mut pool = Pool::new();
        let megabyte_pages = (1 << 20) / PAGE_BYTES;
        for _ in 0..RETAINED_BYTES_MAX >> 20 {
            assert!(pool.give_back(new_pages(megabyte_pages)).is_empty());
        }
        let evicted = pool.give_back(new_pages(1));
        assert_eq!(evicted.iter().map(Vec::len).collect::<Vec<_>>(), [megabyte_pages]);
        assert!(pool.retained_bytes <= RETAINED_BYTES_MAX);
        assert!(pool.take(0).is_some(), "the small buffer must stay");
    }
}
