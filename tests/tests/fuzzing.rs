//! Every decoder of bytes from a disk or a socket, on spoiled bytes: no panic, and no memory out of proportion. `CAIRN_FUZZ_SECONDS=60` tries each
//! of them for so long.

use cairn_tests::fuzz::mutator::Mutator;
use cairn_tests::fuzz::{FuzzTarget, TARGETS, stored};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Memory that a decoder may take beyond `MEMORY_FACTOR` bytes for each byte of its input. serde reserves up to 1 MiB for a sequence at once.
const MEMORY_BASE: usize = 4 << 20;
const MEMORY_FACTOR: usize = 400;
const DIRECTORIES: u64 = 60;

/// Counts what each thread has allocated.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator can't be written without")]
// SAFETY: both methods pass everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that ends is past its counter.
        let _ = ALLOCATED.try_with(|allocated| allocated.set(allocated.get() + layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer comes from `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn time_per_target() -> Duration {
    let seconds = std::env::var("CAIRN_FUZZ_SECONDS").ok().map(|text| text.parse().expect("CAIRN_FUZZ_SECONDS is a number"));
    seconds.map_or(Duration::from_millis(400), Duration::from_secs_f64)
}

#[expect(clippy::disallowed_methods, reason = "how long a decoder is tried is real time")]
fn try_for(target: &FuzzTarget, limit: Duration) -> u64 {
    let examples = (target.examples)();
    let began = Instant::now();
    let mut tries = 0;
    let mut mutator = Mutator::new(limit.as_secs());
    examples.iter().for_each(|example| (target.decode)(example));
    while began.elapsed() < limit {
        for _ in 0..256 {
            let input = mutator.input(&examples);
            let before = ALLOCATED.get();
            (target.decode)(&input);
            let taken = ALLOCATED.get() - before;
            let allowed = MEMORY_BASE + MEMORY_FACTOR * input.len();
            assert!(taken <= allowed, "{}: {taken} bytes of memory for {input:02x?}", target.name);
            tries += 1;
        }
    }
    tries
}

#[test]
fn no_decoder_panics_or_takes_memory_out_of_proportion() {
    let (next, limit) = (AtomicUsize::new(0), time_per_target());
    let work = || {
        while let Some(target) = TARGETS.get(next.fetch_add(1, Ordering::Relaxed)) {
            let tries = try_for(target, limit);
            println!("{}: {tries} inputs", target.name);
            assert!(tries > 0);
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().for_each(|thread| thread.join().expect("see above for the decoder"));
    });
}

#[test]
fn a_damaged_dump_is_refused_and_leaves_the_way_free_for_a_good_one() {
    let found: Vec<String> = (0..10 * DIRECTORIES).filter_map(stored::spoil_a_dump).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn spoiled_segments_never_prove_what_is_wrong() {
    let found: Vec<String> = (0..DIRECTORIES).filter_map(stored::spoil_a_target).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_spoiled_log_is_replayed_up_to_the_damage_or_refused() {
    let found: Vec<String> = (0..DIRECTORIES).filter_map(stored::spoil_a_log).collect();
    assert!(found.is_empty(), "{found:#?}");
}
