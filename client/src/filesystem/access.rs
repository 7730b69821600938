//! Access times, as Linux's relatime sets them: only if the inode was changed since it was read last, or was not read for a day. So
//! readers of the same files cost nothing, and the others one message for many files, every few seconds.
//!
//! What was noted is shown here at once. It is kept until one round after the master was told, for answers under way may be older; then the cache takes
//! it over, for that believes its attributes as long as their lease is held. Nobody else's lease is recalled for an access time.

use crate::cache::MetadataCache;
use crate::limits::{ACCESSES_NOTED_MAX, ACCESSES_TOLD_INTERVAL};
use crate::link::Link;
use cairn_common::attributes::Attributes;
use cairn_common::ids::Ino;
use cairn_common::limits::ACCESSES_MAX;
use cairn_common::time::Timestamp;
use cairn_common::wire::master::{Access, Mutation};
use cairn_runtime::Runtime;
use cairn_runtime::task::TaskGuard;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Who reads a file daily is seen to do so.
const DAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Default)]
struct Noted {
    untold: BTreeMap<Ino, Timestamp>,
    told: BTreeMap<Ino, Timestamp>,
}

/// See the module.
#[derive(Debug)]
pub struct AccessTimes {
    is_on: bool,
    noted: Mutex<Noted>,
}

impl AccessTimes {
    pub fn new(is_on: bool) -> Self {
        Self { is_on, noted: Mutex::default() }
    }

    /// Whether reading now would set the access time.
    pub fn is_due(&self, attributes: &Attributes, now: Timestamp) -> bool {
        let atime = self.newest(attributes);
        let is_old = now.nanos().saturating_sub(atime.nanos()) >= DAY.as_nanos() as i64;
        self.is_on && (atime <= attributes.mtime.max(attributes.ctime) || is_old)
    }

    pub fn note(&self, ino: Ino, at: Timestamp) {
        let mut noted = self.noted.lock();
        if noted.untold.len() < ACCESSES_NOTED_MAX {
            noted.untold.insert(ino, at);
        }
    }

    /// Somebody sets the time by hand.
    pub fn forget(&self, ino: Ino) {
        let mut noted = self.noted.lock();
        noted.untold.remove(&ino);
        noted.told.remove(&ino);
    }

    /// The access time, with what the master may not know yet.
    pub fn newest(&self, attributes: &Attributes) -> Timestamp {
        let noted = self.noted.lock();
        let own = noted.untold.get(&attributes.ino).or_else(|| noted.told.get(&attributes.ino));
        own.map_or(attributes.atime, |at| attributes.atime.max(*at))
    }

    /// Tells the master from time to time; it ends with the guard.
    pub fn start_telling(self: &Arc<Self>, runtime: &Runtime, link: &Arc<Link>, cache: &Arc<MetadataCache>) -> TaskGuard {
        let (this, link, cache, clock) = (Arc::clone(self), Arc::clone(link), Arc::clone(cache), runtime.clone());
        let telling = async move {
            loop {
                clock.sleep(ACCESSES_TOLD_INTERVAL).await;
                this.tell(&link, &cache).await;
            }
        };
        runtime.spawn("access times", telling).abort_on_drop()
    }

    /// Tells the master everything that was noted. What can't be told is forgotten: nobody relies on it.
    pub async fn tell(&self, link: &Arc<Link>, cache: &MetadataCache) {
        let all: Vec<Access> = {
            let mut noted = self.noted.lock();
            // Under the lock, so that a time which is set by hand meanwhile is not overwritten.
            noted.told.iter().for_each(|(ino, at)| cache.was_read(*ino, *at));
            noted.told = std::mem::take(&mut noted.untold);
            noted.told.iter().map(|(ino, at)| Access { ino: *ino, at: *at }).collect()
        };
        for accesses in all.chunks(ACCESSES_MAX) {
            let mutation = Mutation::NoteAccess { accesses: accesses.to_vec() };
            if let Err(error) = link.mutate(mutation, false).await {
                tracing::debug!("access times are forgotten: {error}");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::AccessTimes;
    use crate::tests::fake_master::attributes_of;
    use cairn_common::attributes::{Attributes, FileKind};
    use cairn_common::ids::Ino;
    use cairn_common::time::Timestamp;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    fn file(atime: i64, mtime: i64, ctime: i64) -> Attributes {
        Attributes { atime: at(atime), mtime: at(mtime), ctime: at(ctime), ..attributes_of(Ino(7), FileKind::Regular) }
    }

    #[test]
    fn a_reading_counts_once_after_each_change_and_once_a_day() {
        let times = AccessTimes::new(true);
        for (attributes, due) in [(file(5, 5, 5), true), (file(5, 6, 3), true), (file(5, 3, 6), true), (file(7, 5, 6), false)] {
            assert_eq!(times.is_due(&attributes, at(100)), due, "{attributes:?}");
        }
        assert!(times.is_due(&file(7, 5, 6), at(7 + 24 * 3600)));
        assert!(!AccessTimes::new(false).is_due(&file(5, 5, 5), at(100)));
    }

    #[test]
    fn what_was_noted_is_shown_until_somebody_sets_the_time() {
        let times = AccessTimes::new(true);
        times.note(Ino(7), at(50));
        assert_eq!(times.newest(&file(5, 5, 5)), at(50));
        assert!(!times.is_due(&file(5, 5, 5), at(60)), "not again before the file changes");
        assert!(times.is_due(&file(5, 55, 5), at(60)));
        assert_eq!(times.newest(&file(90, 5, 5)), at(90));
        times.forget(Ino(7));
        assert_eq!(times.newest(&file(5, 5, 5)), at(5));
    }
}
