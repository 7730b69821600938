use super::MetadataCache;
use crate::cache::Leased;
use crate::counters::Counts;
use crate::limits::{KERNEL_SETTLES, KERNEL_SLACK};
use crate::tests::fake_master::attributes_of;
use cairn_common::attributes::{Attributes, FileKind};
use cairn_common::ids::{Ino, SessionId};
use cairn_common::time::Timestamp;
use cairn_common::wire::lease::{Grant, LeaseMode};
use cairn_runtime::sim::{World, block_on_world};
use std::sync::Arc;
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(6);

fn cache_in(world: &World) -> MetadataCache {
    let runtime = world.node("client").runtime();
    let cache = MetadataCache::new(runtime.clone(), Arc::new(Counts::default()));
    cache.renewed(runtime.now().plus(LEASE));
    cache
}

fn version(number: u64) -> Attributes {
    Attributes { version: number, ..attributes_of(Ino(5), FileKind::Regular) }
}

fn leased() -> Leased {
    let read = |ino| Grant { ino, mode: LeaseMode::Read };
    Leased::new(SessionId(1), vec![read(Ino(5)), read(Ino::ROOT)])
}

#[test]
fn attributes_never_go_back() {
    block_on_world(1, |world| async move {
        let cache = cache_in(&world);
        let reading = cache.reading();
        cache.accept(reading, &leased());
        cache.learn_own(reading, &leased(), version(3));
        assert_eq!(cache.learn(reading, &leased(), version(2)), version(3), "the older answer came later");
        assert_eq!(cache.attributes(Ino(5)), Some(version(3)));
        assert_eq!(cache.learn(reading, &leased(), version(4)), version(4));
    });
}

#[test]
fn what_is_known_rests_on_its_lease() {
    block_on_world(1, |world| async move {
        let cache = cache_in(&world);
        let reading = cache.reading();
        cache.learn(reading, &Leased::default(), version(1));
        cache.accept(reading, &leased());
        assert_eq!(cache.attributes(Ino(5)), None, "it came without one");
        cache.learn(reading, &leased(), version(1));
        cache.learn_entry(reading, &leased(), Ino::ROOT, b"a", Some(Ino(5)));
        assert!(cache.attributes(Ino(5)).is_some() && cache.entry(Ino::ROOT, b"a").is_some());
        for ino in [Ino(5), Ino::ROOT] {
            cache.begin_recall(ino, None);
            cache.end_recall(ino);
        }
        cache.learn(reading, &leased(), version(1));
        assert_eq!((cache.attributes(Ino(5)), cache.entry(Ino::ROOT, b"a")), (None, None), "its recall has overtaken the answer");
        let again = cache.reading();
        cache.accept(again, &leased());
        assert_eq!((cache.attributes(Ino(5)), cache.entry(Ino::ROOT, b"a")), (None, None), "that was another lease");
        cache.learn(again, &leased(), version(2));
        assert_eq!(cache.attributes(Ino(5)), Some(version(2)));
        world.sleep(LEASE).await;
        assert_eq!(cache.attributes(Ino(5)), None, "the master was not heard for too long");
        cache.renewed(world.now().plus(LEASE));
        assert_eq!(cache.attributes(Ino(5)), Some(version(2)), "but it had let nobody else have it");
    });
}

#[test]
fn reading_moves_the_access_time_forward_and_nothing_else() {
    block_on_world(1, |world| async move {
        let cache = cache_in(&world);
        let at = |seconds: i64| Timestamp::from_nanos(seconds * 1_000_000_000);
        cache.was_read(Ino(5), at(9));
        let reading = cache.reading();
        cache.accept(reading, &leased());
        let known = Attributes { atime: at(5), ..version(3) };
        cache.learn(reading, &leased(), known.clone());
        for (told, shown) in [(7, 7), (6, 7)] {
            cache.was_read(Ino(5), at(told));
            assert_eq!(cache.attributes(Ino(5)), Some(Attributes { atime: at(shown), ..known.clone() }));
        }
    });
}

#[test]
fn a_name_is_told_only_while_it_is_true_and_goes_on_to_be_believed_where_it_was_moved() {
    block_on_world(1, |world| async move {
        let cache = cache_in(&world);
        let reading = cache.reading();
        cache.accept(reading, &leased());
        cache.learn_entry(reading, &leased(), Ino::ROOT, b"a", Some(Ino(5)));
        assert!(cache.is_name_of(Ino::ROOT, b"a", Ino(5)) && !cache.is_name_of(Ino::ROOT, b"a", Ino(6)));
        assert!(cache.telling_moved(Ino::ROOT, Ino(5)).ttl.is_zero(), "the kernel was told nothing");
        drop(cache.telling_names(Ino::ROOT));
        assert!(!cache.telling_moved(Ino::ROOT, Ino(5)).ttl.is_zero());
        let until = |ino| cache.state.lock().book.in_use(ino).1;
        assert_eq!(until(Ino(5)), until(Ino::ROOT), "moves do not add up");
        assert!(cache.telling_moved(Ino::ROOT, Ino::ROOT).ttl.is_zero(), "it waits for that already");
        cache.begin_recall(Ino::ROOT, None);
        cache.end_recall(Ino::ROOT);
        cache.accept(cache.reading(), &leased());
        assert!(!cache.is_name_of(Ino::ROOT, b"a", Ino(5)), "that was another lease");
    });
}

#[test]
fn questions_asked_before_or_during_a_change_teach_nothing() {
    block_on_world(1, |world| async move {
        let cache = cache_in(&world);
        cache.accept(cache.reading(), &leased());
        let before = cache.reading();
        let change = cache.changing_names(&[(Ino::ROOT, b"a")]);
        let during = cache.reading();
        drop(change);
        let after = cache.reading();
        for (reading, is_believed) in [(before, false), (during, false), (after, true)] {
            cache.learn_entry(reading, &leased(), Ino::ROOT, b"a", None);
            assert_eq!(cache.entry(Ino::ROOT, b"a").is_some(), is_believed);
        }
        let before = cache.reading();
        drop(cache.changing(Ino(5)));
        assert_eq!(cache.learn(before, &leased(), version(1)), version(1), "the asker gets its answer in any case");
        assert_eq!(cache.attributes(Ino(5)), None);
    });
}

#[test]
fn a_lease_is_not_given_back_before_the_kernel_has_forgotten_names() {
    block_on_world(1, |world| async move {
        let cache = cache_in(&world);
        cache.accept(cache.reading(), &leased());
        let telling = cache.telling_names(Ino::ROOT);
        let ttl = telling.ttl;
        assert!(!ttl.is_zero());
        cache.begin_recall(Ino::ROOT, None);
        assert!(cache.telling_names(Ino::ROOT).ttl.is_zero(), "from now on it is told none");
        let begun = world.now();
        let arrives = async {
            world.sleep(Duration::from_millis(30)).await;
            drop(telling);
        };
        futures_util::join!(cache.unused(Ino::ROOT), arrives);
        assert_eq!(world.now().since(begun), Duration::from_millis(30) + ttl + KERNEL_SLACK);
        cache.end_recall(Ino::ROOT);
        cache.accept(cache.reading(), &leased());
        assert!(cache.telling_names(Ino::ROOT).ttl.is_zero(), "others work there, too");
    });
}

#[test]
fn who_is_alone_lets_the_kernel_believe_names_longer_and_waits_for_that_before_it_comes_back() {
    block_on_world(1, |world| async move {
        let cache = cache_in(&world);
        cache.accept(cache.reading(), &leased());
        let among_others = cache.telling_names(Ino::ROOT).ttl;
        cache.note_alone(true);
        let alone = cache.telling_names(Ino::ROOT).ttl;
        assert!(alone > among_others);
        cache.note_alone(false);
        assert_eq!(cache.telling_names(Ino::ROOT).ttl, among_others);
        let begun = world.now();
        cache.names_forgotten().await;
        assert_eq!(world.now().since(begun), alone + KERNEL_SLACK);
        cache.names_forgotten().await;
        assert_eq!(world.now().since(begun), alone + KERNEL_SLACK, "it has forgotten all");
    });
}

/// The kernel knows attributes, and asks by number after that.
fn learned(cache: &MetadataCache) {
    let reading = cache.reading();
    cache.accept(reading, &leased());
    cache.learn_own(reading, &leased(), version(1));
}

#[test]
fn the_first_answer_by_number_is_believed_for_no_time_so_that_it_is_not_lost_on_the_kernel() {
    block_on_world(1, |world| async move {
        let cache = cache_in(&world);
        learned(&cache);
        let told = || cache.telling_attributes(Ino(5), 1, Duration::MAX).ttl;
        assert!(!cache.is_being_asked(Ino(5)));
        assert!(told().is_zero() && cache.is_being_asked(Ino(5)));
        world.sleep(KERNEL_SETTLES / 2).await;
        assert!(told().is_zero(), "another thread may not have its answer yet");
        assert!(!cache.is_believed_by_kernel(Ino(5)), "so it need not be told to forget");
        world.sleep(KERNEL_SETTLES / 2).await;
        assert!(!cache.is_being_asked(Ino(5)) && !told().is_zero() && cache.is_believed_by_kernel(Ino(5)));
        cache.begin_recall(Ino(5), None);
        cache.end_recall(Ino(5));
        learned(&cache);
        assert!(told().is_zero() && cache.is_being_asked(Ino(5)), "this is another lease");
    });
}

/// Else each walk through the directory asks again, for as long as the first answer is believed for no time.
#[test]
fn of_a_directory_that_the_kernel_got_to_know_by_name_the_first_answer_by_number_is_believed() {
    block_on_world(1, |world| async move {
        let cache = cache_in(&world);
        let learned = |kind| {
            let reading = cache.reading();
            cache.accept(reading, &leased());
            cache.learn_own(reading, &leased(), Attributes { kind, ..version(1) });
        };
        let by_number = || cache.telling_attributes(Ino(5), 1, Duration::MAX).ttl;
        for (kind, is_believed) in [(FileKind::Directory, true), (FileKind::Regular, false)] {
            learned(kind);
            drop(cache.telling_inode(Ino(5), 1, Duration::MAX));
            world.sleep(KERNEL_SLACK / 2).await;
            assert!(by_number().is_zero(), "it may not know it yet");
            cache.begin_recall(Ino(5), None);
            cache.end_recall(Ino(5));
            learned(kind);
            drop(cache.telling_inode(Ino(5), 1, Duration::MAX));
            world.sleep(KERNEL_SLACK).await;
            assert_eq!(!by_number().is_zero(), is_believed, "{kind:?}");
            assert_eq!(cache.is_being_asked(Ino(5)), !is_believed);
            cache.begin_recall(Ino(5), None);
            cache.end_recall(Ino(5));
            learned(kind);
            assert!(by_number().is_zero(), "this is another lease");
            cache.begin_recall(Ino(5), None);
            cache.end_recall(Ino(5));
        }
    });
}

#[test]
fn a_lease_is_not_given_back_before_the_kernel_knows_an_inode_that_it_was_told_of() {
    block_on_world(1, |world| async move {
        let cache = cache_in(&world);
        learned(&cache);
        drop(cache.telling_inode(Ino(5), 1, Duration::MAX));
        cache.begin_recall(Ino(5), None);
        let begun = world.now();
        assert!(cache.unused(Ino(5)).await, "it may be slow");
        assert_eq!(world.now().since(begun), KERNEL_SLACK);
        assert!(cache.is_believed_by_kernel(Ino(5)));
        cache.end_recall(Ino(5));

        learned(&cache);
        drop(cache.telling_inode(Ino(5), 1, Duration::MAX));
        world.sleep(KERNEL_SLACK).await;
        drop(cache.telling_attributes(Ino(5), 1, Duration::MAX));
        cache.begin_recall(Ino(5), None);
        let begun = world.now();
        assert!(!cache.unused(Ino(5)).await);
        assert_eq!(world.now().since(begun), KERNEL_SETTLES, "the answer to its question is on its way");
    });
}
