//! Doing what a plan says: much at once, but never more than is allowed; and, when all content is there, what has to come last.

use super::batch::Batch;
use super::pace::Pace;
use super::plan::{Job, Step};
use super::preserve::{set_traits, xattrs_of};
use super::publish::Seat;
use super::route::Route;
use super::spot::{Spot, traits_of};
use super::stop::Stop;
use super::traits::Traits;
use super::watch::{Deed, Sums, Ticket, Watch};
use crate::failure::{At, Failure, Reason};
use crate::local;
use crate::place::RemotePath;
use crate::store::{Follow, Store};
use cairn_common::attributes::{Attributes, FileKind};
use cairn_common::error::FsError;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Steps planned ahead of what is being done.
const STEPS_AHEAD: usize = 1024;
/// Directories that are remembered as made.
const DIRECTORIES_KNOWN_MAX: usize = 65_536;
/// How long what is under way may take to come to a clean end when the user wants to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How to copy.
#[derive(Debug, Clone)]
pub struct Options {
    /// Long files, ranges of one long file, or packs of small files under way at the same time. 8 keep two cores busy; more help over long
    /// distances.
    pub jobs: usize,
    /// Mode, times and extended attributes go along.
    pub preserve: bool,
    /// What is there is replaced.
    pub replace: bool,
    /// Nothing is done, only told.
    pub dry_run: bool,
    /// What was copied is removed at the source, when the copy is stable.
    pub moves: bool,
    pub bytes_per_second: Option<u64>,
}

/// What has to wait until all content is there.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    directories: Vec<Job>,
    /// The first name of the file, and the further one.
    links: Vec<(Spot, Job)>,
    removals: Vec<(Spot, Traits)>,
}

/// Copies.
pub struct Engine {
    pub(super) store: Store,
    pub(super) options: Options,
    pub(super) pace: Pace,
    pub(super) stop: Stop,
    pub(super) watch: Arc<dyn Watch>,
    pub sums: Sums,
    tickets: AtomicU64,
    /// Something of the source could not be seen: then nothing is taken for surplus at the target.
    pub(super) is_blind: AtomicBool,
    remote_directories: Mutex<BTreeMap<RemotePath, Attributes>>,
    local_directories: Mutex<BTreeSet<PathBuf>>,
    moved: Mutex<Vec<(Spot, Traits)>>,
}

impl Engine {
    pub fn new(store: &Store, options: Options, stop: Stop, watch: Arc<dyn Watch>) -> Self {
        Self {
            pace: Pace::new(&store.runtime, options.bytes_per_second),
            store: store.clone(),
            options,
            stop,
            watch,
            sums: Sums::default(),
            tickets: AtomicU64::new(0),
            is_blind: AtomicBool::new(false),
            remote_directories: Mutex::default(),
            local_directories: Mutex::default(),
            moved: Mutex::default(),
        }
    }

    /// Does everything, and tells the watcher of it. What failed is in the sums.
    pub async fn run(&self, routes: Vec<Result<Route, Failure>>) {
        let (sender, steps) = mpsc::channel(STEPS_AHEAD);
        let planning = async move {
            for route in routes {
                match route {
                    Ok(Route::File(job)) => {
                        self.watch.planned(1, job.traits.size);
                        // The receiver goes only when all is over.
                        let _ = sender.send(Step::Copy { job, compare: None }).await;
                    }
                    Ok(Route::Tree(plan)) => plan.run(self, &sender).await,
                    Err(failure) => self.failed(failure),
                }
            }
        };
        let planning = async {
            tokio::select! {
                biased;
                () = self.stop.wait() => {}
                () = planning => {}
            }
        };
        let ((), deferred) = futures_util::future::join(planning, self.do_all(steps)).await;
        self.finish(deferred).await;
    }

    /// What a plan would remove.
    pub async fn removals(&self, routes: &[Result<Route, Failure>]) -> Vec<Spot> {
        let mut found = Vec::new();
        for plan in routes.iter().filter_map(|route| match route {
            Ok(Route::Tree(plan)) => Some(plan),
            _ => None,
        }) {
            let (sender, mut steps) = mpsc::channel(STEPS_AHEAD);
            let planning = async move { plan.run(self, &sender).await };
            let gathering = async {
                while let Some(step) = steps.recv().await {
                    if let Step::Remove { target, .. } = step {
                        found.push(target);
                    }
                }
            };
            futures_util::future::join(planning, gathering).await;
        }
        found
    }

    async fn do_all(&self, mut steps: mpsc::Receiver<Step>) -> Deferred {
        let mut running: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        let (mut batch, mut deferred) = (Batch::default(), Deferred::default());
        let mut more = true;
        loop {
            let is_last_chance = running.is_empty() || !more;
            if batch.is_full() || (!batch.is_empty() && is_last_chance) {
                running.push(Box::pin(self.do_batch(std::mem::take(&mut batch))));
            }
            if !more && running.is_empty() {
                return deferred;
            }
            tokio::select! {
                biased;
                Some(()) = running.next() => {}
                step = steps.recv(), if more && running.len() < self.options.jobs => match step {
                    None => more = false,
                    Some(step) => running.extend(self.begin(step, &mut batch, &mut deferred)),
                },
                () = self.stop.wait(), if more => {
                    more = false;
                    batch = Batch::default();
                }
                () = self.out_of_patience(), if !more => {
                    self.failed(Failure::said("what was under way", "it did not come to its end in time and was given up"));
                    return deferred;
                }
            }
        }
    }

    /// Ready some time after the user wanted to stop.
    async fn out_of_patience(&self) {
        self.stop.wait().await;
        self.store.runtime.sleep(STOP_PATIENCE).await;
    }

    /// Takes a step: into the batch, among what waits, or as work of its own.
    fn begin<'a>(&'a self, step: Step, batch: &mut Batch, deferred: &mut Deferred) -> Option<BoxFuture<'a, ()>> {
        match step {
            Step::Unchanged => self.sums.count(|counts| counts.unchanged += 1),
            Step::Kept(job) => self.told(Deed::Kept, &job),
            Step::Directory(job) => {
                if self.options.preserve && !self.options.dry_run || self.options.moves {
                    deferred.directories.push(job);
                }
            }
            Step::Remove { target, traits } => deferred.removals.push((target, traits)),
            Step::Link { first, job } => deferred.links.push((first, job)),
            Step::CompareXattrs { job, present } => return Some(Box::pin(self.update_if_different(job, present))),
            Step::Copy { job, compare: Some(present) } => return Some(Box::pin(self.copy_if_different(job, present))),
            Step::Copy { job, compare: None } if self.options.dry_run => self.told(Deed::Copied, &job),
            Step::Update(job) if self.options.dry_run => self.told(Deed::Updated, &job),
            Step::Copy { job, compare: None } => match batch.take(job) {
                None => {}
                Some(long) => return Some(Box::pin(self.copy_long(long))),
            },
            Step::Update(job) => batch.update(job),
        }
        None
    }

    async fn copy_if_different(&self, job: Job, present: Traits) {
        match self.is_same_content((&job.source, &job.traits), (&job.target, &present)).await {
            Ok(true) if self.differs_in_traits(&job, &present) => match self.options.dry_run {
                true => self.told(Deed::Updated, &job),
                false => self.update(job).await,
            },
            Ok(true) if self.may_differ_in_xattrs(&job, &present) => self.update_if_different(job, present).await,
            Ok(true) => self.sums.count(|counts| counts.unchanged += 1),
            Ok(false) if self.options.dry_run => self.told(Deed::Copied, &job),
            Ok(false) => {
                let mut batch = Batch::default();
                match batch.take(job) {
                    Some(long) => self.copy_long(long).await,
                    None => self.do_batch(batch).await,
                }
            }
            Err(failure) => self.failed(failure),
        }
    }

    /// Whether a copy with the right content should get another mode or time.
    pub(super) fn differs_in_traits(&self, job: &Job, present: &Traits) -> bool {
        let mode = self.store.caller.mode_of_copy(job.traits.mode, job.traits.uid, true);
        let is_link = job.traits.kind == FileKind::Symlink;
        self.options.preserve && (!job.traits.is_as_old_as(present) || (!is_link && mode != present.mode))
    }

    pub(super) fn may_differ_in_xattrs(&self, job: &Job, present: &Traits) -> bool {
        self.options.preserve && job.traits.kind == FileKind::Regular && (job.traits.may_have_xattrs || present.may_have_xattrs)
    }

    /// Of a copy that is right in all but, perhaps, its extended attributes.
    async fn update_if_different(&self, job: Job, present: Traits) {
        let (wanted, there) =
            futures_util::future::join(xattrs_of(&self.store, &job.source, &job.traits), xattrs_of(&self.store, &job.target, &present))
                .await;
        let is_same = wanted.and_then(|mut wanted| {
            let mut there = there?;
            wanted.sort();
            there.sort();
            Ok(wanted == there)
        });
        match is_same {
            Ok(true) => self.sums.count(|counts| counts.unchanged += 1),
            Ok(false) if self.options.dry_run => self.told(Deed::Updated, &job),
            Ok(false) => self.update(job).await,
            Err(failure) => self.failed(failure),
        }
    }

    pub(super) async fn update(&self, job: Job) {
        let updated = set_traits(&self.store, &job.source, &job.traits, &job.target).await;
        match updated {
            Ok(()) => self.told(Deed::Updated, &job),
            Err(failure) => self.failed(failure),
        }
    }

    async fn copy_long(&self, job: Job) {
        let ticket = Ticket(self.tickets.fetch_add(1, Ordering::Relaxed));
        self.watch.begun(ticket, &job.target.to_string(), job.traits.size);
        let copied = match (&job.source, &job.target) {
            (Spot::Stream, _) => self.upload_stream(&job, ticket).await,
            (Spot::Local(_), _) => self.upload(&job, ticket).await,
            (Spot::Remote(_), Spot::Local(_)) => self.download(&job, ticket).await,
            (Spot::Remote(_), _) => self.copy_across(&job).await,
        };
        self.watch.ended(ticket);
        self.copied(job, copied);
    }

    /// Tells what a copy came to.
    pub(super) fn copied(&self, job: Job, outcome: Result<Deed, Failure>) {
        match outcome {
            Ok(deed) => {
                if deed == Deed::Copied {
                    self.sums.count(|counts| counts.bytes += job.traits.size);
                }
                self.told(deed, &job);
                if deed != Deed::Kept && self.options.moves {
                    self.moved.lock().push((job.source, job.traits));
                }
            }
            Err(failure) => self.failed(failure),
        }
    }

    pub(super) fn told(&self, deed: Deed, job: &Job) {
        self.sums.deed(deed);
        self.watch.done(deed, &job.source.to_string(), &job.target.to_string());
    }

    pub(super) fn failed(&self, failure: Failure) {
        self.sums.count(|counts| counts.failed += 1);
        self.watch.failed(&failure);
    }

    // ---- directories

    /// The place of a file in CairnFS. Its directory is made if it is missing.
    pub(super) async fn seat(&self, target: &Spot) -> Result<Seat, Failure> {
        let Spot::Remote(path) = target else { return Err(Failure::said(target, "it is not in CairnFS")) };
        let parent = path.parent().unwrap_or_default().without_slash();
        let known = self.remote_directories.lock().get(&parent).cloned();
        let directory = match known {
            Some(known) => known,
            None => {
                let (directory, _) = self.store.seat(path).await?;
                self.store.check_change(path, &directory.attributes)?;
                self.remember(parent, &directory.attributes);
                directory.attributes
            }
        };
        let name = path.name().unwrap_or_default().to_vec();
        Ok(Seat { path: path.clone(), directory, name, replace: self.options.replace })
    }

    fn remember(&self, path: RemotePath, directory: &Attributes) {
        let mut known = self.remote_directories.lock();
        if known.len() >= DIRECTORIES_KNOWN_MAX {
            known.clear();
        }
        known.insert(path, directory.clone());
    }

    pub(super) async fn make_directory(&self, target: &Spot) -> Result<(), Failure> {
        match target {
            Spot::Remote(path) => {
                let found = self.store.directory_made(path).await?;
                self.remember(path.clone().without_slash(), &found.attributes);
                Ok(())
            }
            Spot::Local(path) => self.make_local_directory(path).await,
            Spot::Stream => Ok(()),
        }
    }

    pub(super) async fn make_local_directory(&self, path: &Path) -> Result<(), Failure> {
        if self.local_directories.lock().contains(path) {
            return Ok(());
        }
        let made = path.to_owned();
        self.store.runtime.blocking(move || local::make_directories(&made)).await.at(path.display())?;
        let mut known = self.local_directories.lock();
        if known.len() >= DIRECTORIES_KNOWN_MAX {
            known.clear();
        }
        known.insert(path.to_owned());
        Ok(())
    }

    // ---- what comes last

    async fn finish(&self, deferred: Deferred) {
        if self.stop.is_set() {
            return self.settle().await;
        }
        for (first, job) in deferred.links {
            let linked = self.link(&first, &job).await;
            match linked {
                Ok(Some(deed)) => self.copied(job, Ok(deed)),
                Ok(None) => self.sums.count(|counts| counts.unchanged += 1),
                Err(failure) => self.failed(failure),
            }
        }
        self.remove_surplus(deferred.removals).await;
        if self.options.preserve && !self.options.dry_run {
            // From below: what happens in a directory changes its time.
            for job in deferred.directories.iter().rev() {
                if let Err(failure) = set_traits(&self.store, &job.source, &job.traits, &job.target).await
                    && !failure.reason.is_not_found()
                {
                    self.failed(failure);
                }
            }
        }
        self.settle().await;
        if self.options.moves {
            self.remove_moved(deferred.directories).await;
        }
    }

    /// What was written is on stable storage afterwards.
    async fn settle(&self) {
        if self.options.dry_run {
            return;
        }
        if let Err(failure) = self.store.make_stable().await {
            let sentence = format!("it has arrived, but may not survive a loss of power: {}", failure.reason);
            self.failed(Failure::said(failure.object, sentence));
            self.is_blind.store(true, Ordering::Relaxed);
        }
    }

    /// Gives a file that was copied a further name; `None` if it has it.
    async fn link(&self, first: &Spot, job: &Job) -> Result<Option<Deed>, Failure> {
        let same = |one: &Traits, other: &Traits| one.identity == other.identity;
        let there = traits_of(&self.store, first, false).await?;
        match traits_of(&self.store, &job.target, false).await {
            Ok(present) if same(&there, &present) => return Ok(None),
            Ok(_) if !self.options.replace => return Ok(Some(Deed::Kept)),
            Ok(_) => {}
            Err(failure) if failure.reason.is_not_found() => {}
            Err(failure) => return Err(failure),
        }
        if self.options.dry_run {
            return Ok(Some(Deed::Linked));
        }
        match (first, &job.target) {
            (Spot::Remote(first), Spot::Remote(_)) => {
                let seat = self.seat(&job.target).await?;
                let found = self.store.find(first, Follow::AllButLast).await?;
                Ok(Some(if seat.name_unnamed(&self.store, found.ino()).await? { Deed::Linked } else { Deed::Kept }))
            }
            (Spot::Local(first), Spot::Local(target)) => {
                let (first, target, shown) = (first.clone(), target.clone(), target.display().to_string());
                let link = move || {
                    let mut part = target.clone().into_os_string();
                    part.push(".cairn-link");
                    std::fs::hard_link(&first, &part)?;
                    local::rename(Path::new(&part), &target, true)
                };
                self.store.runtime.blocking(link).await.at(shown)?;
                Ok(Some(Deed::Linked))
            }
            _ => Err(Failure::new(&job.target, FsError::NotSupported)),
        }
    }

    async fn remove_surplus(&self, removals: Vec<(Spot, Traits)>) {
        if removals.is_empty() {
            return;
        }
        if self.is_blind.load(Ordering::Relaxed) {
            return self.failed(Failure::said("--delete", "nothing was removed, for not all of the source could be seen"));
        }
        for (target, traits) in removals {
            if self.options.dry_run {
                self.sums.deed(Deed::Removed);
                self.watch.done(Deed::Removed, "", &target.to_string());
            } else {
                self.remove(&target, &traits).await;
            }
        }
    }

    /// Removes the sources of what was moved; directories if nothing is left in them.
    async fn remove_moved(&self, directories: Vec<Job>) {
        if self.options.dry_run {
            return;
        }
        if self.is_blind.load(Ordering::Relaxed) {
            return self.failed(Failure::said(
                "the source",
                "nothing was removed there, for not all of it could be seen, or the copy is not stable",
            ));
        }
        let moved = std::mem::take(&mut *self.moved.lock());
        for (source, traits) in moved {
            if let Err(failure) = self.remove_source(&source, &traits).await {
                let sentence = format!("it was copied, but could not be removed here: {}", failure.reason);
                self.failed(Failure::new(failure.object, Reason::Said(sentence)));
            }
        }
        for job in directories.iter().rev() {
            self.remove_empty_source(&job.source).await;
        }
    }
}
