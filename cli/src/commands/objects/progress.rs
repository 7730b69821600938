//! What a transfer shows: bars on a terminal, else a line for each thing done, or JSON.

use super::output::Output;
use super::tally::Tally;
use anyhow::Result;
use cairn_objects::transfer::{Counts, Deed, Ticket, Watch};
use cairn_objects::{Failure, size};
use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

/// How often gathered lines are written.
const PRINT_INTERVAL: Duration = Duration::from_millis(50);
/// How often who sees no bars is told how far it is.
const NOTE_INTERVAL: Duration = Duration::from_secs(10);
/// Bars of single files; more would hide the rest of the screen.
const FILE_BARS_MAX: usize = 8;

/// How things are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Quiet,
    Bars,
    Lines,
    Json,
}

impl Manner {
    pub fn new(quiet: bool, json: bool) -> Self {
        match (quiet, json) {
            (true, _) => Manner::Quiet,
            (false, true) => Manner::Json,
            (false, false) if std::io::stderr().is_terminal() => Manner::Bars,
            (false, false) => Manner::Lines,
        }
    }
}

struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    files: Mutex<BTreeMap<Ticket, ProgressBar>>,
}

#[derive(Default)]
struct Amounts {
    files_planned: u64,
    files_done: u64,
    bytes_planned: u64,
    bytes_moved: u64,
    noted: Moment,
}

pub struct Progress {
    runtime: Runtime,
    manner: Manner,
    dry_run: bool,
    tally: Tally,
    bars: Option<Bars>,
    lines: Mutex<String>,
    amounts: Mutex<Amounts>,
    started: Moment,
}

impl Progress {
    pub fn new(runtime: &Runtime, manner: Manner, dry_run: bool, tally: &Tally) -> Self {
        let started = runtime.now();
        Self {
            runtime: runtime.clone(),
            manner,
            dry_run,
            tally: tally.clone(),
            bars: (manner == Manner::Bars && !dry_run).then(Bars::new),
            lines: Mutex::default(),
            amounts: Mutex::new(Amounts { noted: started, ..Amounts::default() }),
            started,
        }
    }

    /// Writes lines as they come; never ends.
    pub async fn print(&self, output: &mut Output) -> Result<()> {
        loop {
            self.runtime.sleep(PRINT_INTERVAL).await;
            self.flush(output).await?;
        }
    }

    async fn flush(&self, output: &mut Output) -> Result<()> {
        let lines = std::mem::take(&mut *self.lines.lock());
        output.text(&lines).await?;
        output.flush().await
    }

    /// Takes the bars away, writes what is left, and the sum.
    pub async fn finish(&self, output: &mut Output, counts: &Counts) -> Result<()> {
        if let Some(bars) = &self.bars {
            bars.total.finish_and_clear();
        }
        let took = self.runtime.now().since(self.started);
        let sum = match self.manner {
            Manner::Quiet => String::new(),
            Manner::Json => json_sum(counts, took),
            Manner::Bars | Manner::Lines => text_sum(counts, took, self.dry_run),
        };
        self.lines.lock().push_str(&sum);
        self.flush(output).await
    }

    /// A sentence that is no failure.
    pub fn note(&self, sentence: &str) {
        self.beside_bars(|| self.tally.warn(sentence));
    }

    fn beside_bars(&self, say: impl FnOnce()) {
        match &self.bars {
            Some(bars) => bars.all.suspend(say),
            None => say(),
        }
    }

    fn note_sometimes(&self, amounts: &mut Amounts) {
        let now = self.runtime.now();
        if self.manner == Manner::Lines && now.since(amounts.noted) >= NOTE_INTERVAL {
            amounts.noted = now;
            let (moved, planned) = (size::human(amounts.bytes_moved), size::human(amounts.bytes_planned));
            self.tally.warn(&format!("{moved} of {planned}, {} of {} files", amounts.files_done, amounts.files_planned));
        }
    }
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::new();
        let total = all.add(ProgressBar::new(0).with_style(style("{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} ETA {eta} {msg}")));
        Self { all, total, files: Mutex::default() }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("█▉▊▋▌▍▎▏ ")
}

impl Watch for Progress {
    fn planned(&self, files: u64, bytes: u64) {
        let mut amounts = self.amounts.lock();
        amounts.files_planned += files;
        amounts.bytes_planned += bytes;
        if let Some(bars) = &self.bars {
            bars.total.set_length(amounts.bytes_planned);
        }
    }

    fn begun(&self, ticket: Ticket, name: &str, bytes: u64) {
        let Some(bars) = &self.bars else { return };
        let mut files = bars.files.lock();
        if files.len() < FILE_BARS_MAX {
            let bar = ProgressBar::new(bytes).with_style(style("{bar:30} {bytes}/{total_bytes} {msg}")).with_message(name.to_owned());
            files.insert(ticket, bars.all.insert_before(&bars.total, bar));
        }
    }

    fn moved(&self, ticket: Option<Ticket>, bytes: u64) {
        let mut amounts = self.amounts.lock();
        amounts.bytes_moved += bytes;
        self.note_sometimes(&mut amounts);
        let Some(bars) = &self.bars else { return };
        bars.total.set_position(amounts.bytes_moved);
        if let Some(bar) = ticket.and_then(|ticket| bars.files.lock().get(&ticket).cloned()) {
            bar.inc(bytes);
        }
    }

    fn ended(&self, ticket: Ticket) {
        let bar = self.bars.as_ref().and_then(|bars| bars.files.lock().remove(&ticket));
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
    }

    fn done(&self, deed: Deed, source: &str, target: &str) {
        let mut amounts = self.amounts.lock();
        amounts.files_done += 1;
        if let Some(bars) = &self.bars {
            bars.total.set_message(format!("{} of {} files", amounts.files_done, amounts.files_planned));
            return;
        }
        drop(amounts);
        let line = match self.manner {
            Manner::Quiet => return,
            Manner::Json => json_line(deed, source, target, self.dry_run),
            Manner::Bars | Manner::Lines => text_line(deed, source, target, self.dry_run),
        };
        self.lines.lock().push_str(&line);
    }

    fn failed(&self, failure: &Failure) {
        self.beside_bars(|| self.tally.failed(failure));
    }
}

fn text_line(deed: Deed, source: &str, target: &str, dry_run: bool) -> String {
    let would = if dry_run && deed != Deed::Kept { "would be " } else { "" };
    match source {
        "" => format!("{would}{deed}: {target}\n"),
        source => format!("{would}{deed}: {source} -> {target}\n"),
    }
}

fn json_line(deed: Deed, source: &str, target: &str, dry_run: bool) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        deed: String,
        #[serde(skip_serializing_if = "str::is_empty")]
        source: &'a str,
        target: &'a str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        dry_run: bool,
    }
    // Strings alone: it can't fail.
    serde_json::to_string(&Line { deed: deed.to_string(), source, target, dry_run }).unwrap_or_default() + "\n"
}

fn json_sum(counts: &Counts, took: Duration) -> String {
    #[derive(Serialize)]
    struct Sum<'a> {
        #[serde(flatten)]
        counts: &'a Counts,
        seconds: f64,
    }
    // Numbers alone: it can't fail.
    serde_json::to_string(&Sum { counts, seconds: took.as_secs_f64() }).unwrap_or_default() + "\n"
}

fn text_sum(counts: &Counts, took: Duration, dry_run: bool) -> String {
    let named = [
        (counts.copied, "copied"),
        (counts.linked, "linked"),
        (counts.updated, "updated"),
        (counts.removed, "removed"),
        (counts.kept, "kept"),
        (counts.unchanged, "unchanged"),
        (counts.failed, "failed"),
    ];
    let told: Vec<_> = named.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")).collect();
    let told = if told.is_empty() { "nothing to do".to_owned() } else { told.join(", ") };
    if dry_run {
        return format!("dry run: {told}\n");
    }
    if counts.copied == 0 {
        return format!("{told}\n");
    }
    let resumed = match counts.resumed_bytes {
        0 => String::new(),
        bytes => format!(", {} of it from an earlier try", size::human(bytes)),
    };
    let seconds = took.as_secs_f64().max(0.001);
    let rate = size::human((counts.bytes.saturating_sub(counts.resumed_bytes) as f64 / seconds) as u64);
    format!("{told}; {}{resumed} in {seconds:.1} s ({rate}/s)\n", size::human(counts.bytes))
}

#[cfg(test)]
mod tests {
    use super::{json_line, text_line, text_sum};
    use cairn_objects::transfer::{Counts, Deed};
    use std::time::Duration;

    #[test]
    fn deeds_are_told() {
        assert_eq!(text_line(Deed::Copied, "a", "cairn://b/a", false), "copied: a -> cairn://b/a\n");
        assert_eq!(text_line(Deed::Removed, "", "cairn://b/a", true), "would be removed: cairn://b/a\n");
        assert_eq!(json_line(Deed::Removed, "", "x\"y", false), "{\"deed\":\"removed\",\"target\":\"x\\\"y\"}\n");
    }

    #[test]
    fn sums_name_what_there_is() {
        let counts = Counts { copied: 2, failed: 1, bytes: 3 << 20, resumed_bytes: 1 << 20, ..Counts::default() };
        let sum = text_sum(&counts, Duration::from_secs(2), false);
        assert_eq!(sum, "2 copied, 1 failed; 3.0 MiB, 1.0 MiB of it from an earlier try in 2.0 s (1.0 MiB/s)\n");
        assert_eq!(text_sum(&Counts::default(), Duration::ZERO, true), "dry run: nothing to do\n");
    }
}
