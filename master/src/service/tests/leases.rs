//! Leases over the wire: what is recalled when, who waits for whom, and for how long.

use super::support::{Asker, Manner, start};
use cairn_common::attributes::AttributeChange;
use cairn_common::ids::Ino;
use cairn_common::limits::{FENCING_TIME, lease_end};
use cairn_common::wire::lease::{LeaseMode, RecalledLease};
use cairn_common::wire::master::{MasterError, MasterReply, MasterRequest, Mutation};
use cairn_runtime::sim::{Crash, block_on_world};
use std::time::Duration;

fn chmod(ino: Ino) -> Mutation {
    Mutation::SetAttributes { ino, change: AttributeChange { mode: Some(0o600), ..AttributeChange::default() } }
}

#[test]
fn a_change_recalls_what_others_believe_and_a_look_what_they_hold_back() {
    block_on_world(1, |world| async move {
        let master = start(&world.node("master")).await;
        let (one, two) = (Asker::client(&world, "one", master.address).await, Asker::client(&world, "two", master.address).await);
        let ino = one.create("a", true).await.ino;
        assert_eq!(*two.recalled.lock(), []);
        two.lookup("a").await.unwrap();
        assert_eq!(*one.recalled.lock(), [RecalledLease { ino, keep: Some(LeaseMode::Read) }], "it might hold back writes");
        assert_eq!(one.lease(ino, LeaseMode::Read).await, Ok(Some(LeaseMode::Read)));
        one.recalled.lock().clear();
        two.mutate(false, chmod(ino)).await.unwrap();
        assert_eq!(*one.recalled.lock(), [RecalledLease { ino, keep: None }]);
        one.recalled.lock().clear();
        two.mutate(false, chmod(ino)).await.unwrap();
        assert_eq!(*one.recalled.lock(), [], "nobody else believes anything");
        assert_eq!(one.lease(ino, LeaseMode::Write).await, Ok(Some(LeaseMode::Write)));
        assert_eq!(two.recalled.lock().last(), Some(&RecalledLease { ino, keep: None }));
        one.recalled.lock().clear();
        let list = MasterRequest::ReadDirectory { ino: Ino::ROOT, after: Default::default(), limit: 10, with_attributes: true };
        let (listed, grants) = two.ask_for_leases(list).await;
        assert!(matches!(listed, Ok(MasterReply::Directory { entries, .. }) if entries[0].attributes.is_some()));
        assert_eq!(*one.recalled.lock(), [RecalledLease { ino, keep: Some(LeaseMode::Read) }]);
        assert_eq!(grants.len(), 2, "the directory, and the file in it");
    });
}

#[test]
fn the_names_of_a_directory_are_recalled_with_it() {
    block_on_world(2, |world| async move {
        let master = start(&world.node("master")).await;
        let (one, two) = (Asker::client(&world, "one", master.address).await, Asker::client(&world, "two", master.address).await);
        let lookup = MasterRequest::Lookup { parent: Ino::ROOT, name: b"a".to_vec() };
        let (answer, grants) = one.ask_for_leases(lookup).await;
        assert_eq!((answer, grants.len()), (Ok(MasterReply::NoSuchName), 1), "that there is none may be believed");
        two.create("a", false).await;
        assert_eq!(*one.recalled.lock(), [RecalledLease { ino: Ino::ROOT, keep: None }]);
    });
}

#[test]
fn who_does_not_give_back_is_fenced_and_others_wait_no_longer_than_they_must() {
    block_on_world(3, |world| async move {
        let master = start(&world.node("master")).await;
        let (one, two) = (Asker::client(&world, "one", master.address).await, Asker::client(&world, "two", master.address).await);
        let ino = one.create("a", true).await.ino;
        *one.manner.lock() = Manner::IsSilent;
        let begun = world.now();
        two.lookup("a").await.unwrap();
        let waited = world.now().since(begun);
        assert!((FENCING_TIME - Duration::from_secs(1)..FENCING_TIME + Duration::from_secs(1)).contains(&waited), "{waited:?}");
        assert_eq!(one.renew(&[]).await, Err(MasterError::NoSuchSession(one.session)));
        assert_eq!(one.mutate(false, chmod(ino)).await, Err(MasterError::NoSuchSession(one.session)));
    });
}

#[test]
fn who_says_that_it_is_at_it_keeps_its_session_but_not_for_ever() {
    block_on_world(6, |world| async move {
        let master = start(&world.node("master")).await;
        let (one, two) = (Asker::client(&world, "one", master.address).await, Asker::client(&world, "two", master.address).await);
        let ino = one.create("a", true).await.ino;
        let work = async {
            *one.manner.lock() = Manner::IsBusy;
            let begun = world.now();
            let store = async {
                world.sleep(FENCING_TIME * 3).await;
                *one.manner.lock() = Manner::GivesBack;
            };
            let (looked, ()) = futures_util::join!(two.lookup("a"), store);
            looked.unwrap();
            assert!((FENCING_TIME * 3..FENCING_TIME * 3 + Duration::from_secs(1)).contains(&world.now().since(begun)), "it was waited for");
            one.renew(&[]).await.unwrap();
            *one.manner.lock() = Manner::IsBusy;
            let begun = world.now();
            two.mutate(false, chmod(ino)).await.unwrap();
            world.now().since(begun)
        };
        let renew = async {
            loop {
                world.sleep(Duration::from_secs(1)).await;
                let _ = futures_util::join!(one.renew(&[]), two.renew(&[]));
            }
        };
        let waited = futures_util::select_biased! {
            waited = std::pin::pin!(futures_util::FutureExt::fuse(work)) => waited,
            () = std::pin::pin!(futures_util::FutureExt::fuse(renew)) => return,
        };
        assert!((FENCING_TIME * 6..FENCING_TIME * 6 + Duration::from_secs(10)).contains(&waited), "{waited:?}");
        assert_eq!(one.renew(&[]).await, Err(MasterError::NoSuchSession(one.session)));
    });
}

#[test]
fn who_was_heard_just_before_it_is_fenced_may_believe_in_its_leases_for_a_while() {
    block_on_world(4, |world| async move {
        let master = start(&world.node("master")).await;
        let (one, two) = (Asker::client(&world, "one", master.address).await, Asker::client(&world, "two", master.address).await);
        one.create("a", true).await;
        *one.manner.lock() = Manner::IsSilent;
        let (begun, mut heard) = (world.now(), world.now());
        let renew = async {
            loop {
                world.sleep(Duration::from_secs(1)).await;
                match one.renew(&[]).await {
                    Ok(_) => heard = world.now(),
                    Err(error) => return error,
                }
            }
        };
        let (refused, looked) = futures_util::join!(renew, two.lookup("a"));
        looked.unwrap();
        assert_eq!(refused, MasterError::NoSuchSession(one.session));
        assert!(heard.since(begun) >= FENCING_TIME - Duration::from_secs(2), "it was given its time");
        // The master heard it a moment before its answer came.
        let waited = world.now().since(heard);
        assert!(waited + Duration::from_millis(10) >= lease_end(FENCING_TIME), "{waited:?}");
    });
}

#[test]
fn after_a_restart_those_who_may_come_back_are_waited_for() {
    block_on_world(5, |world| async move {
        let node = world.node("master");
        let master = start(&node).await;
        let (one, two) = (Asker::client(&world, "one", master.address).await, Asker::client(&world, "two", master.address).await);
        let ino = one.create("a", true).await.ino;
        node.crash(Crash::Kill);
        let master = start(&node).await;
        let two = two.come_back(master.address, &[]).await;
        let begun = world.now();
        let come_back = async {
            world.sleep(Duration::from_secs(3)).await;
            one.come_back(master.address, &[ino]).await
        };
        let (looked, one) = futures_util::join!(two.attributes(ino), come_back);
        looked.unwrap();
        assert_eq!(world.now().since(begun).as_secs(), 3, "until it was back, and no longer");
        assert_eq!(*one.recalled.lock(), [], "it claimed nothing");

        node.crash(Crash::Kill);
        let master = start(&node).await;
        let two = two.come_back(master.address, &[]).await;
        let begun = world.now();
        two.mutate(false, chmod(ino)).await.unwrap();
        let waited = world.now().since(begun);
        assert!(waited >= FENCING_TIME - Duration::from_secs(1) && waited <= FENCING_TIME + Duration::from_secs(1), "{waited:?}");
        let before = one.session;
        assert_ne!(one.come_back(master.address, &[]).await.session, before, "it was ended");
    });
}
