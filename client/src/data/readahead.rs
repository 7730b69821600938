//! Notices sequential reading and says how far to read ahead. Pure.
//!
//! A read that begins where an earlier one ended goes on with its stream; the window doubles with each such read, up to a
//! bound. Several streams in one file are followed at the same time; anything else is random and reads nothing ahead.

use super::limits::STREAMS_PER_FILE_MAX;
use std::collections::VecDeque;
use std::ops::Range;

const FIRST_WINDOW_BYTES: u64 = 1 << 20;
/// Reads of one stream may overtake each other, for the kernel sends several at once: by so much once it is a stream ...
const DISORDER_BYTES: u64 = 2 << 20;
/// ... and by so many times their length before.
const DISORDER_FIRST: u64 = 4;

#[derive(Debug)]
struct Stream {
    /// End of what was read.
    position: u64,
    window: u64,
    /// End of what was read ahead.
    ahead: u64,
    hits: u32,
}

impl Stream {
    fn is_followed_by(&self, read: &Range<u64>) -> bool {
        let disorder = if self.hits > 0 { DISORDER_BYTES } else { DISORDER_FIRST * (read.end - read.start) };
        read.start.abs_diff(self.position) <= disorder || read.start > self.position && read.start < self.ahead
    }
}

/// The streams of one file, the one used last in front.
#[derive(Debug, Default)]
pub struct Readahead {
    streams: VecDeque<Stream>,
}

impl Readahead {
    /// Takes note of a read. Answers with the range that should be fetched ahead now, if any; it lies behind `read.end` but for
    /// what a stream that was just noticed still needs of the present read.
    pub fn on_read(&mut self, read: Range<u64>, window_max: u64) -> Option<Range<u64>> {
        let Some(at) = self.streams.iter().position(|stream| stream.is_followed_by(&read)) else {
            self.streams.push_front(Stream { position: read.end, window: FIRST_WINDOW_BYTES, ahead: read.end, hits: 0 });
            self.streams.truncate(STREAMS_PER_FILE_MAX);
            return None;
        };
        let mut stream = self.streams.remove(at)?;
        let advanced = read.end > stream.position;
        if advanced {
            stream.hits += 1;
            stream.position = read.end;
        }
        let wanted = stream.position + stream.window;
        // Half a window at a time, so that requests stay large.
        let due = advanced && window_max > 0 && stream.ahead < stream.position + stream.window / 2 + 1;
        let mut ahead = None;
        if due {
            let start = if stream.hits == 1 { read.start } else { stream.ahead.max(read.start) };
            ahead = Some(start..wanted.max(start));
            stream.ahead = wanted.max(stream.ahead);
            stream.window = (stream.window * 2).min(window_max.max(FIRST_WINDOW_BYTES));
        }
        self.streams.push_front(stream);
        ahead.filter(|range| !range.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::Readahead;

    const MAX: u64 = 16 << 20;

    #[test]
    fn a_stream_is_read_ahead_up_to_the_window() {
        let mut readahead = Readahead::default();
        let step = 128 << 10;
        let mut ahead_to = 0;
        for number in 0..1000u64 {
            let read = number * step..(number + 1) * step;
            if let Some(range) = readahead.on_read(read.clone(), MAX) {
                assert!(range.start <= ahead_to.max(read.start), "no gap is left");
                ahead_to = range.end;
            }
            assert!(ahead_to <= read.end + MAX);
            if number > 200 {
                assert!(ahead_to >= read.end + MAX / 2, "read {number}");
            }
        }
    }

    #[test]
    fn random_reads_fetch_nothing_ahead() {
        let mut readahead = Readahead::default();
        for number in 0..1000u64 {
            let start = number * 7919 % 1000 * (8 << 20);
            assert_eq!(readahead.on_read(start..start + 4096, MAX), None, "read {number} at {start}");
        }
    }

    #[test]
    fn four_streams_are_told_apart() {
        let mut readahead = Readahead::default();
        let mut fetched = [0u64; 4];
        for number in 0..100u64 {
            for stream in 0..4u64 {
                let start = (stream << 32) + number * 4096;
                fetched[stream as usize] += readahead.on_read(start..start + 4096, MAX).map_or(0, |range| range.end - range.start);
            }
        }
        assert!(fetched.iter().all(|bytes| *bytes >= 1 << 20), "{fetched:?}");
    }

    #[test]
    fn parallel_reads_of_one_stream_may_swap() {
        let mut readahead = Readahead::default();
        let mut order: Vec<u64> = (0..64).collect();
        order.chunks_mut(4).for_each(<[u64]>::reverse);
        let ahead = order.iter().filter_map(|number| readahead.on_read(number << 17..(number + 1) << 17, MAX)).map(|range| range.end).max();
        assert!(ahead.expect("noticed") > 10 << 20);
    }
}
