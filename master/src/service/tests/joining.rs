//! The master's own keys. That strangers can join with a token over a real network is tested in the crate `tests`.

use super::support::settings;
use crate::service::settings::StartError;
use crate::service::{Settings, run};
use cairn_runtime::Runtime;
use cairn_runtime::sim::{Node, block_on_world};
use std::path::Path;
use tokio::sync::oneshot;

async fn start_and_stop(runtime: &Runtime, node: &Node) -> Result<(), StartError> {
    let settings = Settings { identity: None, ..settings(node) };
    run(runtime.clone(), settings, oneshot::channel().0, async {}).await
}

#[test]
fn keys_are_made_once_and_an_existing_cluster_needs_its_authority() {
    block_on_world(1, |world| async move {
        let node = world.node("master");
        start_and_stop(&node.runtime(), &node).await.unwrap();
        let names = ["authority.cert", "authority.key", "master.cert", "master.key"];
        let keys = || names.map(|name| node.disk().read(&Path::new("/master").join(name)).unwrap());
        let first = keys();
        let runtime = node.runtime();
        start_and_stop(&runtime, &node).await.unwrap();
        assert_eq!(keys(), first);

        runtime.disk.remove_file(Path::new("/master/master.cert")).unwrap();
        start_and_stop(&node.runtime(), &node).await.unwrap();
        assert_eq!(keys()[..2], first[..2]);
        assert_ne!(keys()[2..], first[2..], "the master's own certificate can be made again");

        let runtime = node.runtime();
        runtime.disk.remove_file(Path::new("/master/authority.cert")).unwrap();
        assert!(matches!(start_and_stop(&runtime, &node).await, Err(StartError::NoAuthority(_))));
    });
}
