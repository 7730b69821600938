//! Which inodes the kernel is asking about, so that it is told to forget when it is not.
//!
//! The kernel throws away the answer to a question for attributes if it was told to forget the inode after it had asked: rightly, for all it knows. But the `read` for
//! which it asked goes on with the size that it knew before, and ends where the file ended once. So what can wait is told when nobody asks.

use cairn_common::collections::FastMap;
use cairn_common::ids::Ino;
use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A process has seen the answer to its question after so long, if the machine is not overloaded.
pub const QUIET: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Asked {
    /// Questions without an answer.
    open: usize,
    /// When the last one came or was answered.
    last: Moment,
    /// Somebody waits for quiet.
    is_watched: bool,
    /// It was quiet, and is being made to forget: so many times at once.
    forgetting: usize,
}

impl Asked {
    fn is_idle(&self) -> bool {
        self.open == 0 && !self.is_watched && self.forgetting == 0
    }
}

/// See the module.
#[derive(Default)]
pub struct Questions {
    inodes: Mutex<FastMap<Ino, Asked>>,
    /// Inodes that are watched, and what is being forgotten.
    watched: AtomicUsize,
}

/// A question whose answer takes its time.
pub struct Question {
    questions: Arc<Questions>,
    runtime: Runtime,
    ino: Ino,
}

impl Drop for Question {
    fn drop(&mut self) {
        let mut inodes = self.questions.inodes.lock();
        let Some(asked) = inodes.get_mut(&self.ino) else { return };
        (asked.open, asked.last) = (asked.open - 1, self.runtime.now());
        if asked.is_idle() {
            inodes.remove(&self.ino);
        }
    }
}

impl Questions {
    /// A question that is answered there and then.
    pub fn note(&self, ino: Ino, now: Moment) {
        if self.watched.load(Ordering::Relaxed) > 0
            && let Some(asked) = self.inodes.lock().get_mut(&ino)
        {
            asked.last = now;
        }
    }

    /// A question that is answered when what this returns is dropped.
    pub fn ask(self: &Arc<Self>, runtime: &Runtime, ino: Ino) -> Question {
        self.inodes.lock().entry(ino).or_default().open += 1;
        Question { questions: Arc::clone(self), runtime: runtime.clone(), ino }
    }

    /// Begins to watch for quiet. `false` if somebody does already.
    pub fn watch(&self, ino: Ino, now: Moment) -> bool {
        let mut inodes = self.inodes.lock();
        let asked = inodes.entry(ino).or_default();
        let is_first = !std::mem::replace(&mut asked.is_watched, true);
        if is_first {
            asked.last = now;
            self.watched.fetch_add(1, Ordering::Relaxed);
        }
        is_first
    }

    /// Whether somebody waits for quiet, or for what begins then.
    pub fn is_pending(&self, ino: Ino) -> bool {
        let is_it = |asked: &Asked| asked.is_watched || asked.forgetting > 0;
        self.watched.load(Ordering::Relaxed) > 0 && self.inodes.lock().get(&ino).is_some_and(is_it)
    }

    /// Ends to watch if it is quiet. Then the kernel is to be made to forget, and `forgotten` to be said.
    pub fn is_quiet(&self, ino: Ino, now: Moment) -> bool {
        let mut inodes = self.inodes.lock();
        let asked = inodes.entry(ino).or_default();
        let is_quiet = asked.open == 0 && asked.last.plus(QUIET) <= now;
        if is_quiet {
            asked.forgetting += 1;
            // What the watch counted for counts for this now.
            if !std::mem::replace(&mut asked.is_watched, false) {
                self.watched.fetch_add(1, Ordering::Relaxed);
            }
        }
        is_quiet
    }

    /// What began with quiet has ended.
    pub fn forgotten(&self, ino: Ino) {
        let mut inodes = self.inodes.lock();
        let Some(asked) = inodes.get_mut(&ino) else { return };
        asked.forgetting -= 1;
        self.watched.fetch_sub(1, Ordering::Relaxed);
        if asked.is_idle() {
            inodes.remove(&ino);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{QUIET, Questions};
    use cairn_common::ids::Ino;
    use cairn_runtime::sim::block_on_world;
    use std::sync::Arc;

    const F: Ino = Ino(7);

    #[test]
    fn it_is_quiet_when_nobody_asks_and_the_last_answer_has_been_seen() {
        block_on_world(1, |world| async move {
            let (questions, runtime) = (Arc::new(Questions::default()), world.node("mount").runtime());
            let slow = questions.ask(&runtime, F);
            assert!(questions.watch(F, world.now()) && !questions.watch(F, world.now()));
            world.sleep(QUIET * 2).await;
            assert!(!questions.is_quiet(F, world.now()) && questions.is_pending(F), "one has no answer");
            drop(slow);
            assert!(!questions.is_quiet(F, world.now()), "perhaps it was not seen yet");
            world.sleep(QUIET / 2).await;
            questions.note(F, world.now());
            world.sleep(QUIET / 2).await;
            assert!(!questions.is_quiet(F, world.now()), "there was another one");
            world.sleep(QUIET / 2).await;
            assert!(questions.is_quiet(F, world.now()) && questions.is_pending(F), "what began then has not ended");
            questions.forgotten(F);
            assert!(!questions.is_pending(F));
            assert!(questions.inodes.lock().is_empty());
            drop(questions.ask(&runtime, F));
            assert!(questions.inodes.lock().is_empty(), "nothing is remembered of what nobody watches");
        });
    }
}
