//! Many seeds on several threads, and a summary that says what was done, what broke, and how to see a failure again.

use crate::coherence;
use crate::crash_points::{Report, chunkserver, master};
use crate::deletion_race::race;
use crate::simulation::history::Counts;
use crate::simulation::plan::Mood;
use crate::simulation::{Outcome, live_through};
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Events that make up the story of a world.
const STORY: [&str; 6] = ["Note", "Fault", "LifeStarted", "LifeEnded", "DiskFault", "ConnectionEnded"];

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    seeds: Range<u64>,
    /// Stop beginning new worlds after this time.
    limit: Option<Duration>,
    jobs: usize,
    detail: Detail,
    until_failure: bool,
    kind: Kind,
}

/// What to do with each seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Worlds,
    CrashPoints,
    DeletionRace,
    Coherence,
}

/// What to tell of a single world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    Outcome,
    Story,
    Events,
}

const USAGE: &str = "usage: simulate (--seed N [--trace | --events] | --seeds A..B [--crash-points | --deletion-race | --coherence] | --minutes N [--from N]) [--until-failure] [--jobs N]";

impl Arguments {
    /// Reads a command line.
    pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self { seeds: 0..0, limit: None, jobs: 1, detail: Detail::Outcome, until_failure: false, kind: Kind::Worlds };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value; {USAGE}"));
            match argument.as_str() {
                "--seed" => {
                    let seed = number(&value()?)?;
                    parsed.seeds = seed..seed + 1;
                }
                "--seeds" => {
                    let text = value()?;
                    let (from, until) = text.split_once("..").ok_or_else(|| format!("{text:?} is no range; {USAGE}"))?;
                    parsed.seeds = number(from)?..number(until)?;
                }
                "--minutes" => {
                    parsed.limit = Some(Duration::from_secs(60 * number(&value()?)?));
                    parsed.seeds.end = u64::MAX;
                }
                "--from" => parsed.seeds.start = number(&value()?)?,
                "--jobs" => parsed.jobs = number(&value()?)?.clamp(1, 256) as usize,
                "--until-failure" => parsed.until_failure = true,
                "--crash-points" => parsed.kind = Kind::CrashPoints,
                "--deletion-race" => parsed.kind = Kind::DeletionRace,
                "--coherence" => parsed.kind = Kind::Coherence,
                "--trace" => parsed.detail = Detail::Story,
                "--events" => parsed.detail = Detail::Events,
                _ => return Err(format!("what is {argument:?}? {USAGE}")),
            }
        }
        if parsed.seeds.is_empty() { Err(USAGE.to_owned()) } else { Ok(parsed) }
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is no number; {USAGE}"))
}

/// What all worlds together were like.
#[derive(Default)]
struct Summary {
    worlds: u64,
    moods: BTreeMap<Mood, u64>,
    operations: Counts,
    faults: Counts,
    virtual_time: Duration,
    /// Seeds, and what was wrong.
    failures: BTreeMap<u64, Vec<String>>,
}

impl Summary {
    fn add(&mut self, seed: u64, result: Result<Outcome, String>) {
        self.worlds += 1;
        match result {
            Ok(outcome) => {
                *self.moods.entry(outcome.plan.mood).or_default() += 1;
                self.virtual_time += outcome.lasted;
                add_counts(&mut self.operations, &outcome.operations);
                add_counts(&mut self.faults, &outcome.faults);
                if !outcome.violations.is_empty() {
                    let texts = outcome.violations.iter().map(|violation| format!("{}: {}", violation.checker, violation.text));
                    self.failures.insert(seed, texts.collect());
                }
            }
            Err(panic) => drop(self.failures.insert(seed, vec![panic])),
        }
    }

    fn print(&self, elapsed: Duration) {
        let per_minute = self.worlds as f64 * 60.0 / elapsed.as_secs_f64().max(0.001);
        println!(
            "{} worlds in {:.1} s ({per_minute:.0} per minute), {:.1} h of virtual time",
            self.worlds,
            elapsed.as_secs_f64(),
            hours(self.virtual_time)
        );
        println!("moods: {:?}", self.moods);
        print_counts("operations", &self.operations);
        print_counts("faults", &self.faults);
        println!("failures: {}", self.failures.len());
        for (seed, texts) in &self.failures {
            println!("  seed {seed} (replay: cargo run --release -p cairn-tests --bin simulate -- --seed {seed} --trace)");
            texts.iter().take(5).for_each(|text| println!("    {}", shortened(text)));
        }
    }
}

fn hours(duration: Duration) -> f64 {
    duration.as_secs_f64() / 3600.0
}

fn shortened(text: &str) -> String {
    text.chars().take(1_500).collect()
}

fn add_counts(sum: &mut Counts, counts: &Counts) {
    for (name, count) in counts {
        *sum.entry(name).or_default() += count;
    }
}

fn print_counts(what: &str, counts: &Counts) {
    let parts: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    println!("{what} ({}): {}", counts.values().sum::<u64>(), parts.join(", "));
}

/// Lives through one world; a panic in it is its result.
fn attempt(seed: u64, with_trace: bool) -> Result<Outcome, String> {
    catch_unwind(AssertUnwindSafe(|| live_through(seed, with_trace))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        format!("panic: {}", text.unwrap_or_default())
    })
}

/// Runs what was asked for and prints what came of it.
pub fn run(arguments: &Arguments) -> ExitCode {
    match arguments.kind {
        Kind::Worlds => run_worlds(arguments),
        Kind::CrashPoints => run_crash_points(arguments),
        Kind::DeletionRace => run_deletion_races(arguments),
        Kind::Coherence => run_coherence(arguments),
    }
}

fn run_worlds(arguments: &Arguments) -> ExitCode {
    let began = real_now();
    let summary = Mutex::new(Summary::default());
    let next = Mutex::new(arguments.seeds.clone());
    let work = || {
        loop {
            let is_done = arguments.until_failure && !summary.lock().expect("no panic while it is held").failures.is_empty();
            let is_late = is_done || arguments.limit.is_some_and(|limit| began.elapsed() > limit);
            let Some(seed) = next.lock().expect("no panic while it is held").next().filter(|_| !is_late) else { return };
            let result = attempt(seed, arguments.detail != Detail::Outcome);
            tell(&result, arguments.detail);
            summary.lock().expect("no panic while it is held").add(seed, result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(work);
        }
    });
    let summary = summary.into_inner().expect("no panic while it is held");
    summary.print(began.elapsed());
    if summary.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Cuts the power at every operation of a disk, in worlds of each seed.
fn run_crash_points(arguments: &Arguments) -> ExitCode {
    let mut is_good = true;
    for (name, enumerate) in [("master", master::enumerate as fn(Range<u64>, u64) -> Report), ("chunkserver", chunkserver::enumerate)] {
        let attempted = catch_unwind(AssertUnwindSafe(|| enumerate(arguments.seeds.clone(), 1)));
        let report = attempted.unwrap_or_else(|_| Report { violations: vec!["it panicked".to_owned()], ..Report::default() });
        println!("{name}: {report}");
        report.violations.iter().take(5).for_each(|text| println!("    {}", shortened(text)));
        is_good &= report.violations.is_empty();
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Writes content again at the moment at which its chunk is collected.
fn run_deletion_races(arguments: &Arguments) -> ExitCode {
    let attempt = |seed| catch_unwind(AssertUnwindSafe(|| race(seed))).unwrap_or_else(|_| Some(format!("seed {seed}: it panicked")));
    let broken: Vec<String> = arguments.seeds.clone().filter_map(attempt).collect();
    println!("{} races, {} lost", arguments.seeds.end - arguments.seeds.start, broken.len());
    broken.iter().take(5).for_each(|text| println!("    {}", shortened(text)));
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Several clients use the same files at once.
fn run_coherence(arguments: &Arguments) -> ExitCode {
    let (began, next) = (real_now(), Mutex::new(arguments.seeds.clone()));
    let (counts, failures) = (Mutex::new(Counts::new()), Mutex::new(BTreeMap::new()));
    let work = || {
        loop {
            let is_done = arguments.until_failure && !failures.lock().expect("no panic while it is held").is_empty();
            let Some(seed) = next.lock().expect("no panic while it is held").next().filter(|_| !is_done) else { return };
            let outcome = catch_unwind(AssertUnwindSafe(|| coherence::live_through(seed, arguments.detail != Detail::Outcome)));
            let violations = match outcome {
                Ok(outcome) => {
                    add_counts(&mut counts.lock().expect("no panic while it is held"), &outcome.counts);
                    outcome.trace.iter().filter(|line| is_told(line, arguments.detail)).for_each(|line| println!("{line}"));
                    outcome.violations
                }
                Err(_) => vec!["it panicked".to_owned()],
            };
            if !violations.is_empty() {
                failures.lock().expect("no panic while it is held").insert(seed, violations);
            }
        }
    };
    std::thread::scope(|scope| (0..arguments.jobs).for_each(|_| drop(scope.spawn(work))));
    let (counts, failures) = (counts.into_inner().expect("no panic"), failures.into_inner().expect("no panic"));
    let done = next.into_inner().expect("no panic").start - arguments.seeds.start;
    println!("{done} worlds in {:.1} s, {} of them incoherent", began.elapsed().as_secs_f64(), failures.len());
    println!("    {}", counts.iter().map(|(what, times)| format!("{what} {times}")).collect::<Vec<_>>().join(", "));
    for (seed, violations) in failures.iter().take(10) {
        println!("seed {seed}");
        violations.iter().take(4).for_each(|text| println!("    coherence: {}", shortened(text)));
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The time of whoever waits for the summary, not of any world.
#[expect(clippy::disallowed_methods, reason = "how long the worlds take is told to people")]
fn real_now() -> Instant {
    Instant::now()
}

fn tell(result: &Result<Outcome, String>, detail: Detail) {
    let Ok(outcome) = result else { return };
    outcome.trace.iter().filter(|line| is_told(line, detail)).for_each(|line| println!("{line}"));
}

fn is_told(line: &str, detail: Detail) -> bool {
    detail == Detail::Events || STORY.iter().any(|kind| line.contains(kind))
}

#[cfg(test)]
mod tests {
    use super::{Arguments, Detail};
    use std::time::Duration;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn command_lines() {
        let one = parse("--seed 5 --trace").unwrap();
        assert_eq!((one.seeds, one.detail, one.jobs), (5..6, Detail::Story, 1));
        assert_eq!(parse("--seeds 3..10 --jobs 2").unwrap().seeds, 3..10);
        let long = parse("--minutes 2 --from 1000").unwrap();
        assert_eq!((long.seeds.start, long.limit), (1000, Some(Duration::from_secs(120))));
        assert!(parse("").is_err());
        assert!(parse("--seeds 5").is_err());
        assert!(parse("--sed 5").is_err());
    }
}
