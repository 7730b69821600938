use super::MetadataCache;
use crate::counters::Counts;
use crate::tests::fake_master::attributes_of;
use cairn_common::attributes::{Attributes, FileKind};
use cairn_common::ids::Ino;
use cairn_runtime::sim::{World, block_on_world};
use std::sync::Arc;
use std::time::Duration;

const TTL: Duration = Duration::from_secs(1);

fn cache_in(world: &World) -> MetadataCache {
    MetadataCache::new(world.node("client").runtime(), TTL, Arc::new(Counts::default()))
}

fn version(number: u64) -> Attributes {
    Attributes { version: number, ..attributes_of(Ino(5), FileKind::Regular) }
}

#[test]
fn attributes_never_go_back() {
    block_on_world(1, |world| async move {
        let cache = cache_in(&world);
        let reading = cache.reading();
        cache.learn_own(version(3));
        assert_eq!(cache.learn(reading, version(2)), version(3), "the older answer came later");
        assert_eq!(cache.attributes(Ino(5)), Some(version(3)));
        world.sleep(TTL).await;
        assert_eq!(cache.attributes(Ino(5)), None);
        let reading = cache.reading();
        assert_eq!(cache.learn(reading, version(2)), version(3), "even when it is not fresh any more");
        assert_eq!(cache.learn(reading, version(4)), version(4));
    });
}

#[test]
fn an_answer_counts_from_when_it_was_asked_for() {
    block_on_world(1, |world| async move {
        let cache = cache_in(&world);
        let reading = cache.reading();
        world.sleep(TTL * 3 / 4).await;
        cache.learn(reading, version(1));
        cache.learn_entry(reading, Ino::ROOT, b"a", Some(Ino(5)));
        assert!(cache.validity(Ino(5)) <= TTL / 4);
        world.sleep(TTL / 4).await;
        assert_eq!((cache.attributes(Ino(5)), cache.entry(Ino::ROOT, b"a")), (None, None));
    });
}

#[test]
fn questions_asked_before_or_during_a_change_teach_nothing() {
    block_on_world(1, |world| async move {
        let cache = cache_in(&world);
        let before = cache.reading();
        let change = cache.changing_names(&[(Ino(5), b"a")]);
        let during = cache.reading();
        drop(change);
        let after = cache.reading();
        for (reading, is_believed) in [(before, false), (during, false), (after, true)] {
            cache.learn_entry(reading, Ino(5), b"a", None);
            assert_eq!(cache.entry(Ino(5), b"a").is_some(), is_believed);
            assert_eq!(cache.learn(reading, version(1)), version(1), "the asker gets its answer in any case");
            assert_eq!(cache.attributes(Ino(5)).is_some(), is_believed);
        }
        drop(cache.changing(Ino(5)));
        assert_eq!(cache.attributes(Ino(5)), None);
    });
}
