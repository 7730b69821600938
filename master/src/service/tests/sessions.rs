//! Exactly once, and files that live on for those who have them open.

use super::support::{Asker, creation, settings, start, start_with};
use cairn_common::error::FsError;
use cairn_common::ids::{Ino, SessionId};
use cairn_common::limits::SESSION_SILENCE_MAX;
use cairn_common::wire::master::{MasterError, MasterReply, MasterRequest, Role};
use cairn_runtime::sim::{Crash, block_on_world};
use std::time::Duration;

#[test]
fn a_retry_gets_the_first_answer_even_from_the_next_life_of_the_master() {
    block_on_world(1, |world| async move {
        let node = world.node("master");
        let master = start(&node).await;
        let client = Asker::client(&world, "client", master.address).await;
        let sequence = client.next_sequence();
        let first = client.mutate_as(sequence, false, creation("a", false)).await.unwrap();
        assert_eq!(client.mutate_as(sequence, true, creation("a", false)).await.unwrap(), first);
        let refused = client.next_sequence();
        assert_eq!(client.mutate_as(refused, false, creation("a", false)).await, Err(FsError::Exists.into()));

        node.crash(Crash::Kill);
        let master = start(&node).await;
        let client = client.come_back(master.address, &[]).await;
        assert_eq!(client.mutate_as(sequence, false, creation("a", false)).await.unwrap(), first);
        client.unlink("a").await;
        assert_eq!(client.mutate_as(refused, false, creation("a", false)).await, Err(FsError::Exists.into()));
    });
}

#[test]
fn an_unlinked_file_lives_until_its_last_holder_closes_it() {
    block_on_world(2, |world| async move {
        let master = start(&world.node("master")).await;
        let (one, two) = (Asker::client(&world, "one", master.address).await, Asker::client(&world, "two", master.address).await);
        let ino = one.create("a", true).await.ino;
        assert!(matches!(two.open(ino).await, Ok(MasterReply::Opened { .. })));
        two.unlink("a").await;
        assert_eq!(one.attributes(ino).await.unwrap().nlink, 0);
        one.renew(&[ino]).await.unwrap();
        assert!(one.attributes(ino).await.is_ok(), "the other one has it open");
        two.ask(MasterRequest::CloseSession { session: two.session }).await.unwrap();
        assert_eq!(one.attributes(ino).await, Err(FsError::Stale));
        assert_eq!(two.renew(&[]).await, Err(MasterError::NoSuchSession(two.session)));
    });
}

#[test]
fn an_unlinked_file_can_be_opened_by_its_number_and_then_lives_for_its_opener_too() {
    block_on_world(3, |world| async move {
        let master = start(&world.node("master")).await;
        let (one, two) = (Asker::client(&world, "one", master.address).await, Asker::client(&world, "two", master.address).await);
        let ino = one.create("a", true).await.ino;
        one.unlink("a").await;
        assert!(matches!(two.open(ino).await, Ok(MasterReply::Opened { .. })));
        one.renew(&[ino]).await.unwrap();
        assert!(two.attributes(ino).await.is_ok());
        two.renew(&[ino]).await.unwrap();
        assert_eq!(two.open(ino).await, Err(FsError::Stale.into()));
    });
}

#[test]
fn what_a_client_still_has_open_when_it_comes_back_after_a_restart_lives_on() {
    block_on_world(4, |world| async move {
        let node = world.node("master");
        let master = start(&node).await;
        let (one, two) = (Asker::client(&world, "one", master.address).await, Asker::client(&world, "two", master.address).await);
        let (kept, closed) = (one.create("kept", true).await.ino, one.create("closed", true).await.ino);

        node.crash(Crash::Kill);
        let master = start(&node).await;
        let two = two.come_back(master.address, &[]).await;
        let unlink = async {
            two.unlink("kept").await;
            two.unlink("closed").await;
        };
        let come_back = async {
            world.sleep(Duration::from_secs(1)).await;
            one.come_back(master.address, &[kept]).await
        };
        // The removals wait for whoever may have something to say about it.
        let ((), one) = futures_util::join!(unlink, come_back);
        assert!(one.attributes(kept).await.is_ok());
        assert_eq!(one.attributes(closed).await, Err(FsError::Stale), "it came back without it");

        one.connection.close("gone for good");
        for _ in 0..SESSION_SILENCE_MAX.as_secs() / 5 + 1 {
            two.runtime.sleep(Duration::from_secs(5)).await;
            two.renew(&[]).await.unwrap();
        }
        assert_eq!(two.attributes(kept).await, Err(FsError::Stale), "silence ends a session");
    });
}

#[test]
fn a_session_that_never_comes_back_after_a_restart_ends() {
    block_on_world(5, |world| async move {
        let node = world.node("master");
        let master = start(&node).await;
        let gone = Asker::client(&world, "gone", master.address).await;
        let ino = gone.create("a", true).await.ino;
        gone.unlink("a").await;
        node.crash(Crash::Kill);
        let master = start(&node).await;
        world.sleep(SESSION_SILENCE_MAX / 2).await;
        let client = Asker::client(&world, "client", master.address).await;
        let sessions = async || match client.ask(MasterRequest::Status).await {
            Ok(MasterReply::Status(status)) => status.sessions.iter().map(|session| session.id).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(sessions().await, [gone.session, client.session], "nobody needs what it may hold");
        world.sleep(SESSION_SILENCE_MAX / 2 + Duration::from_secs(2)).await;
        assert_eq!(sessions().await, [client.session]);
        assert_eq!(client.attributes(ino).await, Err(FsError::Stale));
    });
}

#[test]
fn requests_in_the_name_of_anothers_session_are_refused() {
    block_on_world(6, |world| async move {
        let master = start(&world.node("master")).await;
        let (one, mut two) = (Asker::client(&world, "one", master.address).await, Asker::client(&world, "two", master.address).await);
        two.session = one.session;
        assert_eq!(two.renew(&[]).await, Err(MasterError::NoSuchSession(one.session)));
        assert_eq!(two.mutate(false, creation("a", false)).await, Err(MasterError::NoSuchSession(one.session)));
        assert_ne!(two.open_session(Some(one.session), &[]).await, one.session);
        assert!(one.renew(&[]).await.is_ok());
    });
}

#[test]
fn roles_are_kept_apart_and_nonsense_is_refused() {
    block_on_world(7, |world| async move {
        let master = start(&world.node("master")).await;
        let stranger = Asker::connect(&world.node("stranger"), None, master.address).await;
        let chunkserver = Asker::connect(&world.node("chunkserver"), Some(Role::Chunkserver), master.address).await;
        let client = Asker::client(&world, "client", master.address).await;
        let denied = |needed| Err(MasterError::Denied { needed });
        let lookup = MasterRequest::Lookup { parent: Ino::ROOT, name: b"a".to_vec() };
        let register = MasterRequest::RegisterServer {
            address: master.address,
            incarnation: Default::default(),
            labels: Default::default(),
            targets: Vec::new(),
        };
        assert_eq!(stranger.ask(lookup.clone()).await, denied(Role::Client));
        assert_eq!(stranger.ask(MasterRequest::Status).await, denied(Role::Client));
        assert_eq!(chunkserver.ask(lookup).await, denied(Role::Client));
        assert_eq!(client.ask(register).await, denied(Role::Chunkserver));
        let token = MasterRequest::CreateToken { role: Role::Client, lifetime_seconds: 1 };
        assert_eq!(chunkserver.ask(token.clone()).await, denied(Role::Client));
        assert!(matches!(client.ask(token).await, Err(MasterError::Unavailable(_))), "there is no authority here");
        assert!(matches!(client.ask_raw(vec![255; 40]).await, Err(MasterError::Malformed(_))));
        assert!(matches!(stranger.ask_raw(Vec::new()).await, Err(MasterError::Malformed(_))));
        assert_eq!(client.renew(&[]).await.is_ok(), client.session != SessionId(0));
    });
}

#[test]
fn any_traffic_keeps_a_session_alive() {
    block_on_world(8, |world| async move {
        let node = world.node("master");
        let master = start_with(&node, settings(&node)).await;
        let client = Asker::client(&world, "client", master.address).await;
        for _ in 0..4 {
            client.runtime.sleep(SESSION_SILENCE_MAX / 2).await;
            client.lookup("nothing").await.unwrap_err();
        }
        assert!(client.renew(&[]).await.is_ok());
        client.runtime.sleep(SESSION_SILENCE_MAX + Duration::from_secs(2)).await;
        assert_eq!(client.renew(&[]).await, Err(MasterError::NoSuchSession(client.session)));
    });
}
