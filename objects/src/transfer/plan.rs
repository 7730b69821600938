//! What has to be done to make one tree like another: both are gone over together, a directory at a time, so memory holds the names of one
//! directory on each level, however many there are in all.

use super::engine::Engine;
use super::part::is_part;
use super::spot::{Spot, Tree};
use super::traits::{Entry, Traits};
use crate::failure::Failure;
use crate::filter::Filter;
use cairn_common::attributes::FileKind;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::mpsc::Sender;

/// When a file that is there on both sides counts as the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Never: it is copied again.
    Never,
    SizeAndTime,
    SizeOnly,
    /// If its content hashes to the same.
    Checksum,
}

/// What a plan goes by.
#[derive(Debug, Clone)]
pub struct Rules {
    pub filter: Filter,
    pub comparison: Comparison,
    /// What the source does not have is removed at the target.
    pub delete: bool,
    /// What the target has stays, whatever it is.
    pub keep_existing: bool,
    /// Names of one file at the source become names of one file at the target.
    pub links: bool,
}

/// One file to be copied, and what is known of it.
#[derive(Debug, Clone)]
pub struct Job {
    pub source: Spot,
    pub traits: Traits,
    pub target: Spot,
}

/// One thing to be done.
#[derive(Debug)]
pub enum Step {
    /// A directory that is there, or was made; its attributes come last.
    Directory(Job),
    /// With `compare`, only if the content differs from this that is there.
    Copy {
        job: Job,
        compare: Option<Traits>,
    },
    /// The content is right, mode or time are not.
    Update(Job),
    /// Content, mode and time are right; extended attributes may not be.
    CompareXattrs {
        job: Job,
        present: Traits,
    },
    /// A further name of a file whose copy is `first`.
    Link {
        first: Spot,
        job: Job,
    },
    Remove {
        target: Spot,
        traits: Traits,
    },
    Kept(Job),
    Unchanged,
}

/// Two trees.
pub struct Plan {
    pub source: Tree,
    pub target: Tree,
    pub rules: Rules,
    /// Files of several names: where the copy of the first name is.
    firsts: Mutex<BTreeMap<(u64, u64), Spot>>,
}

/// A run of a plan.
struct Tour<'a> {
    plan: &'a Plan,
    engine: &'a Engine,
    steps: &'a Sender<Step>,
}

impl Plan {
    pub fn new(source: Tree, target: Tree, rules: Rules) -> Self {
        Self { source, target, rules, firsts: Mutex::default() }
    }

    /// Goes over both trees; tells what is to be done as it is found, and what can't be seen as failures.
    pub async fn run(&self, engine: &Engine, steps: &Sender<Step>) {
        self.firsts.lock().clear();
        let tour = Tour { plan: self, engine, steps };
        match self.source.traits(&engine.store).await {
            Ok(traits) => tour.enter(Vec::new(), traits, true).await,
            Err(failure) => tour.blind(failure),
        }
    }

    fn needs_target(&self) -> bool {
        self.rules.comparison != Comparison::Never || self.rules.delete || self.rules.keep_existing
    }
}

impl<'a> Tour<'a> {
    fn job(&self, relative: &[u8], traits: Traits) -> Job {
        Job { source: self.plan.source.spot(relative), traits, target: self.plan.target.spot(relative) }
    }

    async fn send(&self, step: Step) {
        // The receiver goes only when nobody wants more.
        let _ = self.steps.send(step).await;
    }

    /// Something of the source could not be seen.
    fn blind(&self, failure: Failure) {
        self.engine.is_blind.store(true, Relaxed);
        self.engine.failed(failure);
    }

    fn enter(&self, relative: Vec<u8>, traits: Traits, may_be_there: bool) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let (plan, engine) = (self.plan, self.engine);
            let source = match plan.source.list(&engine.store, &relative).await {
                Ok(Some(entries)) => entries,
                Ok(None) => return self.blind(Failure::said(plan.source.spot(&relative), "it vanished while it was being copied")),
                Err(failure) => return self.blind(failure),
            };
            let target = if may_be_there && plan.needs_target() { plan.target.list(&engine.store, &relative).await } else { Ok(None) };
            let target = match target {
                Ok(entries) => entries.unwrap_or_default(),
                Err(failure) => return self.blind(failure),
            };
            // With a filter a directory is made when something is to be in it.
            if plan.rules.filter.is_empty()
                && !engine.options.dry_run
                && let Err(failure) = engine.make_directory(&plan.target.spot(&relative)).await
            {
                return self.blind(failure);
            }
            let job = self.job(&relative, traits);
            self.send(Step::Directory(job)).await;
            self.merge(&relative, source, target).await;
        })
    }

    /// Both lists are in order of name.
    async fn merge(&self, directory: &[u8], source: Vec<Entry>, target: Vec<Entry>) {
        let (mut source, mut target) = (source.into_iter().peekable(), target.into_iter().peekable());
        while !self.engine.stop.is_set() {
            let order = match (source.peek(), target.peek()) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(one), Some(other)) => one.name.cmp(&other.name),
            };
            let entry = if order == Ordering::Greater { None } else { source.next() };
            let present = if order == Ordering::Less { None } else { target.next() };
            match (entry, present) {
                (Some(entry), present) => self.meet(directory, entry, present.map(|present| present.traits)).await,
                (None, Some(surplus)) => self.surplus(directory, surplus).await,
                (None, None) => {}
            }
        }
    }

    async fn meet(&self, directory: &[u8], entry: Entry, present: Option<Traits>) {
        if is_part(&entry.name) {
            return;
        }
        let relative = join(directory, &entry.name);
        let is_directory_there = present.as_ref().map(Traits::is_directory);
        match (entry.traits.is_directory(), is_directory_there) {
            (true, Some(false)) => {
                self.engine.failed(Failure::said(self.plan.target.spot(&relative), "a file is there: a directory can't replace it"));
            }
            (false, Some(true)) if self.plan.rules.filter.takes(&relative) => {
                self.engine.failed(Failure::said(self.plan.target.spot(&relative), "a directory is there: a file can't replace it"));
            }
            (true, _) => self.enter(relative, entry.traits, present.is_some()).await,
            (false, _) if self.plan.rules.filter.takes(&relative) => self.file(relative, entry.traits, present).await,
            (false, _) => {}
        }
    }

    async fn file(&self, relative: Vec<u8>, traits: Traits, present: Option<Traits>) {
        let rules = &self.plan.rules;
        let job = self.job(&relative, traits);
        if present.is_some() && rules.keep_existing {
            return self.send(Step::Kept(job)).await;
        }
        if let Some(first) = self.first_name(&job) {
            return self.send(Step::Link { first, job }).await;
        }
        let step = match present.filter(|present| self.may_be_same(&job, present)) {
            Some(present) if rules.comparison == Comparison::Checksum && job.traits.kind == FileKind::Regular => {
                Step::Copy { job, compare: Some(present) }
            }
            Some(present) if self.engine.differs_in_traits(&job, &present) => Step::Update(job),
            Some(present) if self.engine.may_differ_in_xattrs(&job, &present) => Step::CompareXattrs { job, present },
            Some(_) => Step::Unchanged,
            None => Step::Copy { job, compare: None },
        };
        if let Step::Copy { job, .. } = &step {
            self.engine.watch.planned(1, job.traits.size);
        }
        self.send(step).await;
    }

    /// Where the copy of a file is whose other name was met before.
    fn first_name(&self, job: &Job) -> Option<Spot> {
        if !self.plan.rules.links || job.traits.links < 2 || job.traits.kind != FileKind::Regular {
            return None;
        }
        let mut firsts = self.plan.firsts.lock();
        match firsts.get(&job.traits.identity) {
            Some(first) => Some(first.clone()),
            None => {
                firsts.insert(job.traits.identity, job.target.clone());
                None
            }
        }
    }

    /// Whether what is there counts as the same, or (by checksum) could be. A symlink's time stands for where it leads.
    fn may_be_same(&self, job: &Job, present: &Traits) -> bool {
        let is_alike = job.traits.kind == present.kind && job.traits.size == present.size;
        is_alike
            && match self.plan.rules.comparison {
                Comparison::Never => false,
                Comparison::SizeAndTime => job.traits.is_as_old_as(present),
                Comparison::SizeOnly => true,
                Comparison::Checksum => job.traits.kind == FileKind::Regular || job.traits.is_as_old_as(present),
            }
    }

    fn surplus<'b>(&'b self, directory: &'b [u8], surplus: Entry) -> BoxFuture<'b, ()> {
        Box::pin(async move {
            let rules = &self.plan.rules;
            if !rules.delete || is_part(&surplus.name) {
                return;
            }
            let relative = join(directory, &surplus.name);
            let target = self.plan.target.spot(&relative);
            if !surplus.traits.is_directory() || rules.filter.is_empty() {
                if rules.filter.takes(&relative) {
                    self.send(Step::Remove { target, traits: surplus.traits }).await;
                }
                return;
            }
            // What the filter leaves out stays, and so does its directory.
            match self.plan.target.list(&self.engine.store, &relative).await {
                Ok(entries) => {
                    for entry in entries.unwrap_or_default() {
                        self.surplus(&relative, entry).await;
                    }
                }
                Err(failure) => self.engine.failed(failure),
            }
        })
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}
