//! `cairn bench`: how fast a directory is, big files, small files and metadata, with several threads. Meant for a mount, works on any directory.

use crate::arguments::Bench;
use anyhow::{Context, Result, bail};
use cairn_objects::size::human;
use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use rustix::fs::{Advice, fadvise};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;
/// Bytes of one read or write.
const BLOCK_BYTES: usize = 1 << 20;
const SMALL_BYTES: usize = 128 << 10;

/// What one part of the bench came to.
struct Measured {
    what: &'static str,
    /// Per second, in `unit`.
    rate: f64,
    unit: &'static str,
    /// Milliseconds of one operation on one thread.
    cost_ms: f64,
    operation: &'static str,
}

pub fn run(options: Bench) -> Result<()> {
    super::in_role("bench", move |runtime| async move {
        let machine = runtime.clone();
        let measured = runtime.blocking(move || Round::new(machine, &options).and_then(|round| Ok((round.run()?, options)))).await;
        let (measured, options) = measured?;
        if options.json {
            let rows = measured.iter().map(|one| json!({ "what": one.what, "rate": one.rate, "unit": one.unit, "ms": one.cost_ms }));
            return super::print(&(serde_json::to_string_pretty(&rows.collect::<Vec<_>>())? + "\n"));
        }
        super::print(&table(&options, &measured))
    })
}

fn table(options: &Bench, measured: &[Measured]) -> String {
    let mut text = format!(
        "{} threads, each a file of {} and {} of {}, in {}\n\nitem               value            cost\n",
        options.threads,
        human(options.big_size * MIB),
        options.small_files,
        human(SMALL_BYTES as u64),
        options.directory.display()
    );
    for Measured { what, rate, unit, cost_ms, operation } in measured {
        text += &format!("{what:<18} {:<16} {cost_ms:.2} ms/{operation}\n", format!("{rate:.1} {unit}"));
    }
    text
}

/// A directory of its own, removed in the end.
struct Round {
    runtime: Runtime,
    directory: PathBuf,
    threads: u32,
    big_bytes: u64,
    small_files: u32,
    block: Vec<u8>,
}

impl Round {
    fn new(runtime: Runtime, options: &Bench) -> Result<Self> {
        let name = format!("cairn-bench-{}-{:x}", std::process::id(), runtime.random_u64() & 0xffff);
        let directory = options.directory.join(name);
        if !options.directory.is_dir() {
            bail!("{} is not a directory", options.directory.display());
        }
        std::fs::DirBuilder::new().create(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        // What repeats would be stored once.
        let block = (0..BLOCK_BYTES / 8).flat_map(|_| runtime.random_bytes::<8>()).collect();
        let (threads, big_bytes, small_files) = (options.threads, options.big_size * MIB, options.small_files);
        Ok(Self { runtime, directory, threads, big_bytes, small_files, block })
    }

    fn run(&self) -> Result<Vec<Measured>> {
        let blocks = (self.big_bytes / BLOCK_BYTES as u64) * u64::from(self.threads);
        let (files, mib) = (u64::from(self.small_files) * u64::from(self.threads), (blocks * BLOCK_BYTES as u64 / MIB) as f64);
        let mut all = Vec::new();
        let mut measure = |what, operations: u64, amount: f64, unit, operation, work: &(dyn Fn(u32) -> Result<()> + Sync)| {
            let seconds = self.each_thread(work)?;
            let cost_ms = seconds * 1000.0 * f64::from(self.threads) / operations.max(1) as f64;
            all.push(Measured { what, rate: amount / seconds, unit, cost_ms, operation });
            anyhow::Ok(())
        };
        measure("write big file", blocks, mib, "MiB/s", "MiB", &|thread| self.write_big(thread))?;
        measure("read big file", blocks, mib, "MiB/s", "MiB", &|thread| read(&self.big(thread)))?;
        measure("write small files", files, files as f64, "files/s", "file", &|thread| self.write_small(thread))?;
        measure("read small files", files, files as f64, "files/s", "file", &|thread| self.each_small(thread, read))?;
        measure("stat files", files, files as f64, "files/s", "file", &|thread| {
            self.each_small(thread, |path| path.metadata().map(drop).with_context(|| format!("cannot look at {}", path.display())))
        })?;
        measure("remove files", files, files as f64, "files/s", "file", &|thread| self.each_small(thread, remove))?;
        Ok(all)
    }

    /// The seconds until all threads have done the work.
    fn each_thread(&self, work: &(dyn Fn(u32) -> Result<()> + Sync)) -> Result<f64> {
        let begun: Moment = self.runtime.now();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads).map(|thread| scope.spawn(move || work(thread))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a thread of the bench panicked")))
        })?;
        Ok(self.runtime.now().since(begun).as_secs_f64().max(1e-9))
    }

    fn big(&self, thread: u32) -> PathBuf {
        self.directory.join(format!("big-{thread}"))
    }

    fn write_big(&self, thread: u32) -> Result<()> {
        let path = self.big(thread);
        let cannot = || format!("cannot write {}", path.display());
        let mut file = create(&path)?;
        let mut block = self.block.clone();
        for number in 0..self.big_bytes / BLOCK_BYTES as u64 {
            block[..8].copy_from_slice(&(number << 16 | u64::from(thread)).to_le_bytes());
            file.write_all(&block).with_context(cannot)?;
        }
        file.sync_all().with_context(cannot)
    }

    fn write_small(&self, thread: u32) -> Result<()> {
        let mut content = self.block[..SMALL_BYTES].to_vec();
        self.each_small(thread, |path| {
            content[..8].copy_from_slice(&self.runtime.random_bytes::<8>());
            create(path)?.write_all(&content).with_context(|| format!("cannot write {}", path.display()))
        })
    }

    fn each_small(&self, thread: u32, mut work: impl FnMut(&Path) -> Result<()>) -> Result<()> {
        (0..self.small_files).try_for_each(|number| work(&self.directory.join(format!("small-{thread}-{number}"))))
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::warn!("{} is left behind: {error}", self.directory.display());
        }
    }
}

fn create(path: &Path) -> Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path).with_context(|| format!("cannot make {}", path.display()))
}

/// Reads a file from its file system, rather than from the page cache.
fn read(path: &Path) -> Result<()> {
    let cannot = || format!("cannot read {}", path.display());
    let mut file = OpenOptions::new().read(true).open(path).with_context(cannot)?;
    // A file system that does not know the advice reads from where it likes.
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    let mut block = vec![0; BLOCK_BYTES];
    while file.read(&mut block).with_context(cannot)? > 0 {}
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a file of the bench, outside any store of ours")]
fn remove(path: &Path) -> Result<()> {
    std::fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
}
