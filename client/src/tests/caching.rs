//! What is remembered, as long as which lease is held, and what is forgotten when.

use super::fake_master::LEASE;
use super::world::{Pair, new_file};
use crate::{FileSystem, OpenFlags, WriteAt};
use cairn_common::attributes::AttributeChange;
use cairn_common::error::FsError;
use cairn_common::ids::{DirCookie, Ino};
use cairn_common::wire::lease::{ClientReply, LeaseMode};
use cairn_runtime::sim::block_on_world;
use std::time::Duration;

#[test]
fn attributes_and_names_are_believed_until_they_are_recalled() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world.clone()).await;
        let ino = pair.master.make("f");
        let first = pair.fs.lookup(Ino::ROOT, b"f").await.expect("it is there");
        pair.master.with(|state| state.change(ino, |attributes| attributes.mode = 0o600)).expect("it is there");
        assert_eq!(pair.fs.try_lookup(Ino::ROOT, b"f"), Some(Ok(first.clone())));
        let first_again = first.clone();
        assert_eq!(pair.fs.attributes(ino).await, Ok(first));
        world.sleep(Duration::from_secs(100)).await;
        assert_eq!(pair.fs.try_attributes(ino), Some(first_again), "the session is renewed, and the lease with it");
        assert_eq!(pair.master.asked("attributes"), 0);
        pair.master.recall(ino, None).await;
        assert_eq!(pair.fs.try_attributes(ino), None);
        assert_eq!(pair.fs.try_lookup(Ino::ROOT, b"f"), None, "the name is known, its attributes are not");
        assert_eq!(pair.fs.attributes(ino).await.map(|attributes| attributes.mode), Ok(0o600), "now the change is seen");
    });
}

#[test]
fn a_name_that_was_not_there_appears_at_once_for_its_maker_and_for_others_with_the_recall() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world.clone()).await;
        for name in [b"a".as_slice(), b"b"] {
            assert_eq!(pair.fs.lookup(Ino::ROOT, name).await, Err(FsError::NotFound));
            assert_eq!(pair.fs.try_lookup(Ino::ROOT, name), Some(Err(FsError::NotFound)));
        }
        let made = pair.fs.create(Ino::ROOT, b"a", new_file(), false).await.expect("a new name");
        assert_eq!(pair.fs.try_lookup(Ino::ROOT, b"a"), Some(Ok(made)));
        pair.master.make("b");
        assert_eq!(pair.fs.lookup(Ino::ROOT, b"b").await, Err(FsError::NotFound), "not yet");
        pair.master.recall(Ino::ROOT, None).await;
        assert!(pair.fs.lookup(Ino::ROOT, b"b").await.is_ok());
        pair.fs.unlink(Ino::ROOT, b"a").await.expect("it is there");
        assert_eq!(pair.fs.try_lookup(Ino::ROOT, b"a"), Some(Err(FsError::NotFound)));
    });
}

#[test]
fn our_own_changes_are_seen_at_once_also_in_the_directory() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world).await;
        assert_eq!(pair.fs.attributes(Ino::ROOT).await.map(|root| root.size), Ok(0));
        let made = pair.fs.create(Ino::ROOT, b"a", new_file(), false).await.expect("a new name");
        assert_eq!(pair.fs.attributes(Ino::ROOT).await.map(|root| root.size), Ok(1));
        let change = AttributeChange { mode: Some(0o711), ..AttributeChange::default() };
        pair.fs.set_attributes(made.ino, change, None).await.expect("it is there");
        assert_eq!(pair.fs.try_attributes(made.ino).map(|attributes| attributes.mode), Some(0o711));
    });
}

#[test]
fn an_answer_that_our_own_change_overtook_is_not_remembered() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world.clone()).await;
        // The reply to the lookup waits; the creation is done and answered meanwhile.
        pair.master.with(|state| (state.faults.late, state.faults.lateness) = (100, Duration::from_millis(300)));
        let late = async {
            let found = pair.fs.lookup(Ino::ROOT, b"a").await;
            (found, pair.fs.try_lookup(Ino::ROOT, b"a"))
        };
        let create = async {
            world.sleep(Duration::from_millis(10)).await;
            pair.master.with(|state| state.faults.late = 0);
            pair.fs.create(Ino::ROOT, b"a", new_file(), false).await
        };
        let ((found, remembered), made) = futures_util::join!(late, create);
        assert_eq!(found, Err(FsError::NotFound), "it was asked before");
        assert_eq!(remembered, Some(made), "but what was made since is known");
    });
}

#[test]
fn what_was_written_shows_in_the_attributes_before_it_is_with_the_master() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world).await;
        let (made, opened) = pair.fs.create_open(Ino::ROOT, b"a", new_file(), false, OpenFlags::READ_WRITE).await.expect("a new file");
        assert_eq!(pair.fs.try_write(opened.handle, 10, b"hello"), Some(Ok(5)));
        let seen = pair.fs.try_attributes(made.ino).expect("just made");
        assert_eq!(seen.size, 15);
        assert!(seen.mtime > made.mtime && seen.allocated > 0);
        assert!(pair.fs.needs_flush(opened.handle));
        assert_eq!(pair.fs.read(opened.handle, 8, 100).await.as_deref(), Ok(b"\0\0hello".as_slice()));
        let change = AttributeChange { size: Some(12), ..AttributeChange::default() };
        let cut = pair.fs.set_attributes(made.ino, change, None).await.expect("it is there");
        assert_eq!(cut.size, 12);
        assert_eq!(pair.fs.read(opened.handle, 8, 100).await.as_deref(), Ok(b"\0\0he".as_slice()));
    });
}

#[test]
fn appends_of_one_client_do_not_overlap() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world).await;
        let flags = OpenFlags { append: true, ..OpenFlags::READ_WRITE };
        let (made, first) = pair.fs.create_open(Ino::ROOT, b"log", new_file(), false, flags).await.expect("a new file");
        let second = pair.fs.open(made.ino, flags).await.expect("it is there");
        assert_eq!(pair.fs.try_write(first.handle, 0, b"one "), Some(Ok(4)));
        assert_eq!(pair.fs.write(second.handle, 0, b"two ").await, Ok(4));
        assert_eq!(pair.fs.try_write(first.handle, 0, b"three"), Some(Ok(5)));
        assert_eq!(pair.fs.read(second.handle, 0, 100).await.as_deref(), Ok(b"one two three".as_slice()));
    });
}

#[test]
fn handles_do_what_they_were_opened_for() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world).await;
        let ino = pair.master.make("f");
        let reader = pair.fs.open(ino, OpenFlags::READ).await.expect("it is there").handle;
        assert_eq!(pair.fs.write(reader, 0, b"x").await, Err(FsError::BadHandle));
        assert_eq!(pair.fs.try_write(reader, 0, b"x"), Some(Err(FsError::BadHandle)));
        assert!(!pair.fs.needs_flush(reader));
    });
}

#[test]
fn the_kernels_pages_may_stay_unless_somebody_else_changed_the_file() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world).await;
        let ino = pair.master.make("f");
        let reopen = async |fs: &FileSystem| {
            let opened = fs.open(ino, OpenFlags::READ).await.expect("it is there");
            fs.release(opened.handle).expect("open");
            opened.keep_cache
        };
        assert!(!reopen(&pair.fs).await, "never seen before");
        assert!(reopen(&pair.fs).await);
        let change = AttributeChange { mode: Some(0o600), ..AttributeChange::default() };
        pair.fs.set_attributes(ino, change, None).await.expect("it is there");
        assert!(reopen(&pair.fs).await, "our own change");
        pair.master.with(|state| state.change(ino, |attributes| attributes.size = 5)).expect("it is there");
        pair.master.recall(ino, None).await;
        assert!(!reopen(&pair.fs).await, "somebody else's");
    });
}

async fn list_all(pair: &Pair, with_attributes: bool, step: usize) -> Vec<Ino> {
    let handle = pair.fs.open_directory(Ino::ROOT).await.expect("the root");
    let (mut listed, mut after) = (Vec::new(), DirCookie(0));
    loop {
        let page = pair.fs.read_directory(handle, after, step, with_attributes).await.expect("a listing");
        let Some(last) = page.last() else { break };
        after = last.cookie;
        assert!(page.len() <= step && page.iter().all(|entry| entry.attributes.is_some() == with_attributes));
        listed.extend(page.iter().map(|entry| entry.ino));
    }
    pair.fs.release_directory(handle).expect("open");
    listed
}

#[test]
fn a_listing_is_complete_and_takes_few_requests() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world.clone()).await;
        let files: Vec<Ino> = (0..2500).map(|number| pair.master.make(&format!("f{number}"))).collect();
        assert_eq!(list_all(&pair, true, 100).await, files);
        assert_eq!(pair.master.asked("readdir"), 3);
        pair.fs.lookup(Ino::ROOT, b"f2400").await.expect("it is there");
        assert_eq!(pair.master.asked("lookup"), 0, "the listing brought names and attributes");
        assert_eq!(list_all(&pair, true, 1000).await, files);
        assert_eq!(pair.master.asked("readdir"), 3, "a whole listing is good as long as the lease");
        pair.master.recall(Ino::ROOT, None).await;
        assert_eq!(list_all(&pair, false, 1000).await, files);
        assert_eq!(pair.master.asked("readdir"), 6, "then it is asked for anew");
    });
}

#[test]
fn a_listing_slower_than_leases_has_all_entries_and_their_attributes() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world.clone()).await;
        let files: Vec<Ino> = (0..1500).map(|number| pair.master.make(&format!("f{number}"))).collect();
        let handle = pair.fs.open_directory(Ino::ROOT).await.expect("the root");
        let (mut listed, mut after) = (Vec::new(), DirCookie(0));
        loop {
            let page = pair.fs.read_directory(handle, after, 200, true).await.expect("a listing");
            let Some(last) = page.last() else { break };
            after = last.cookie;
            assert!(page.iter().all(|entry| entry.attributes.is_some()), "an entry without attributes is none to programs");
            listed.extend(page.iter().map(|entry| entry.ino));
            pair.master.recall(files[900], None).await;
            world.sleep(LEASE * 2).await;
        }
        assert_eq!(listed, files);
    });
}

#[test]
fn what_we_changed_since_a_page_came_is_listed_as_it_is_now() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world.clone()).await;
        let files: Vec<Ino> = (0..10).map(|number| pair.master.make(&format!("f{number}"))).collect();
        let handle = pair.fs.open_directory(Ino::ROOT).await.expect("the root");
        let first = pair.fs.read_directory(handle, DirCookie(0), 1, true).await.expect("a listing");
        pair.fs.unlink(Ino::ROOT, b"f1").await.expect("it is there");
        let change = AttributeChange { mode: Some(0o600), ..AttributeChange::default() };
        pair.fs.set_attributes(files[2], change, None).await.expect("it is there");
        let rest = pair.fs.read_directory(handle, first[0].cookie, 100, true).await.expect("a listing");
        let changed = rest.iter().find(|entry| entry.ino == files[2]).and_then(|entry| entry.attributes.clone());
        assert_eq!(changed.map(|attributes| attributes.mode), Some(0o600));
        assert!(rest.iter().all(|entry| entry.attributes.is_some()));
    });
}

#[test]
fn looking_up_one_name_after_the_other_reads_the_directory_ahead() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world.clone()).await;
        let names: Vec<String> = (0..2500).map(|number| format!("f{number}")).collect();
        for name in &names {
            pair.master.make(name);
        }
        list_all(&pair, false, 1000).await;
        for name in &names {
            pair.fs.lookup(Ino::ROOT, name.as_bytes()).await.expect("it is there");
        }
        assert!(pair.master.asked("lookup") < 150, "{} lookups", pair.master.asked("lookup"));
        assert!(pair.fs.counters().entries_read_ahead > 2300);
    });
}

#[test]
fn fsync_asks_for_the_log_once() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world).await;
        let (_, opened) = pair.fs.create_open(Ino::ROOT, b"a", new_file(), false, OpenFlags::READ_WRITE).await.expect("a new file");
        pair.fs.fsync(opened.handle, false).await.expect("the master syncs");
        assert_eq!(pair.master.asked("sync"), 1, "the creation must be durable, too");
        pair.fs.sync_directory(Ino::ROOT).await.expect("the master syncs");
        assert_eq!(pair.master.asked("sync"), 2);
    });
}

#[test]
fn without_an_answer_of_the_master_leases_are_good_for_a_while_only() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world.clone()).await;
        let ino = pair.master.make("f");
        pair.fs.lookup(Ino::ROOT, b"f").await.expect("it is there");
        world.sleep(Duration::from_secs(50)).await;
        pair.master.with(|state| state.faults.silent = true);
        world.sleep(LEASE / 3).await;
        assert!(pair.fs.try_attributes(ino).is_some());
        world.sleep(LEASE).await;
        assert_eq!((pair.fs.try_attributes(ino), pair.fs.try_lookup(Ino::ROOT, b"nothing")), (None, None));
    });
}

#[test]
fn what_is_written_is_flushed_before_the_lease_is_given_back() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world).await;
        let (made, opened) = pair.fs.create_open(Ino::ROOT, b"a", new_file(), false, OpenFlags::READ_WRITE).await.expect("a new file");
        let grow = async |size: u64| {
            pair.fs.allocate(opened.handle, crate::AllocateMode::Extend, 0, size).await.expect("it grows");
        };
        grow(5).await;
        assert_eq!(pair.fs.try_write(opened.handle, 0, b""), Some(Ok(0)), "it may write without asking");
        pair.master.recall(made.ino, Some(LeaseMode::Read)).await;
        assert_eq!(pair.fs.try_write(opened.handle, 0, b""), None, "now it has to ask");
        assert_eq!(pair.master.asked("lease"), 0);
        assert_eq!(pair.fs.write(opened.handle, 0, b"").await, Ok(0));
        assert_eq!(pair.master.asked("lease"), 1);
        pair.master.recall(made.ino, None).await;
        pair.master.with(|state| state.change(made.ino, |attributes| attributes.size = 9)).expect("it is there");
        let append = OpenFlags { append: true, ..OpenFlags::READ_WRITE };
        let second = pair.fs.open(made.ino, append).await.expect("it is there");
        assert_eq!(second.attributes.size, 9, "others may have made it longer");
    });
}

#[test]
fn between_the_pieces_of_an_append_the_lease_is_kept_for_a_while() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world.clone()).await;
        let (made, opened) = pair.fs.create_open(Ino::ROOT, b"a", new_file(), false, OpenFlags::READ_WRITE).await.expect("a new file");
        let append = async |at: WriteAt| pair.fs.write_at(opened.handle, at, b"").await.expect("written");
        let recall = async || {
            let begun = world.now();
            pair.master.recall(made.ino, Some(LeaseMode::Read)).await;
            world.now().since(begun)
        };

        append(WriteAt::End).await;
        assert!(recall().await < Duration::from_millis(10));

        append(WriteAt::EndAndMore).await;
        let rest = async {
            world.sleep(Duration::from_millis(30)).await;
            assert!(pair.fs.try_write_at(opened.handle, WriteAt::End, b"").is_some(), "the same right to write");
        };
        let (waited, ()) = tokio::join!(recall(), rest);
        assert!((30..40).contains(&waited.as_millis()), "until the rest was written, not {waited:?}");

        append(WriteAt::EndAndMore).await;
        let waited = recall().await;
        assert!((50..60).contains(&waited.as_millis()), "for a rest that does not come, not {waited:?}");

        append(WriteAt::EndAndMore).await;
        let pieces = async {
            for _ in 0..100 {
                world.sleep(Duration::from_millis(20)).await;
                append(WriteAt::EndAndMore).await;
            }
        };
        let (waited, ()) = tokio::join!(recall(), pieces);
        assert!((500..600).contains(&waited.as_millis()), "pieces may come for ever, not {waited:?}");
    });
}

#[test]
fn a_reply_without_a_lease_is_used_once() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world).await;
        let ino = pair.master.make("f");
        pair.master.with(|state| state.grants = false);
        for _ in 0..3 {
            pair.fs.lookup(Ino::ROOT, b"f").await.expect("it is there");
            pair.fs.attributes(ino).await.expect("it is there");
        }
        assert_eq!((pair.master.asked("lookup"), pair.master.asked("attributes")), (3, 3));
    });
}

#[test]
fn a_recall_that_takes_its_time_is_answered_by_saying_so() {
    block_on_world(1, |world| async move {
        let pair = Pair::new(world.clone()).await;
        let (made, opened) = pair.fs.create_open(Ino::ROOT, b"a", new_file(), false, OpenFlags::READ_WRITE).await.expect("a new file");
        assert_eq!(pair.fs.try_write(opened.handle, 0, b"held back"), Some(Ok(9)));
        // There is no chunkserver at all: the data can't be stored, and is given up after some time.
        let begun = world.now();
        assert_eq!(pair.master.ask_back(made.ino, None).await, ClientReply::Busy);
        assert!(world.now().since(begun) < Duration::from_secs(2));
        while pair.master.ask_back(made.ino, None).await == ClientReply::Busy {
            assert!(world.now().since(begun) < Duration::from_secs(40), "it is given up");
        }
        assert_eq!(pair.fs.try_attributes(made.ino), None);
        assert_eq!(pair.fs.fsync(opened.handle, false).await, Err(FsError::Io), "its writers are told");
    });
}
