//! `cairn chunkserver list`, `drain`, `undrain` and `remove`

use super::ask_first::go_on;
use super::status::ServerReport;
use crate::arguments::{ChunkserverAction, ChunkserverChange, ChunkserverList, Operator};
use crate::commands::token::operator;
use crate::identity::{Membership, ask};
use anyhow::{Result, bail};
use cairn_common::ids::{ServerId, TargetId};
use cairn_common::map::{Slot, Target, TargetState};
use cairn_common::wire::chunkserver::TargetStatus;
use cairn_common::wire::master::{MasterError, MasterReply, MasterRequest, ServerChange, Status};
use cairn_objects::size::human;
use cairn_runtime::Runtime;

pub fn run(action: ChunkserverAction) -> Result<()> {
    match action {
        ChunkserverAction::List(options) => list(options),
        ChunkserverAction::Drain(options) => change(options, ServerChange::Drain),
        ChunkserverAction::Undrain(options) => change(options, ServerChange::Undrain),
        ChunkserverAction::Remove(options) => change(options, ServerChange::Remove),
    }
}

fn change(options: ChunkserverChange, change: ServerChange) -> Result<()> {
    super::in_role("chunkserver", move |runtime| async move {
        let member = operator(&runtime, &options.access, options.data.as_deref()).await?;
        let server = ServerId(options.server);
        if !perform(&runtime, member, server, change, options.yes).await? {
            return Ok(());
        }
        match change {
            ServerChange::Drain => {
                println!("{server} is being drained. `cairn chunkserver list` tells when it is; then: cairn chunkserver remove {server}");
            }
            ServerChange::Undrain => println!("{server} serves again"),
            ServerChange::Remove => println!("{server} is removed: stop it, and keep or erase its directories as you like"),
        }
        Ok(())
    })
}

/// Has the master do it. What costs redundancy or data is done only if somebody insists, who has seen what it costs. Whether it was done.
async fn perform(runtime: &Runtime, member: Membership, server: ServerId, change: ServerChange, yes: bool) -> Result<bool> {
    let request = |insist| MasterRequest::ChangeServer { server, change, insist };
    let mut answer = ask(runtime, member.master, member.credentials.clone(), &request(yes)).await;
    if let Err(error) = &answer
        && let Some(MasterError::Unwise(cost)) = error.downcast_ref()
    {
        if !go_on(cost, false)? {
            return Ok(false);
        }
        answer = ask(runtime, member.master, member.credentials, &request(true)).await;
    }
    match answer? {
        MasterReply::ServerChanged { .. } => Ok(true),
        other => bail!("the master answered something else to a change of {server}: {other:?}"),
    }
}

fn list(options: ChunkserverList) -> Result<()> {
    super::in_role("chunkserver", move |runtime| async move {
        let status = super::status::fetch(&runtime, &Operator { access: options.access, data: options.data }).await?;
        if options.json {
            let servers: Vec<_> = status.servers.iter().map(ServerReport::new).collect();
            return super::print(&(serde_json::to_string_pretty(&servers)? + "\n"));
        }
        super::print(&table(&status))
    })
}

fn table(status: &Status) -> String {
    let mut rows = vec!["chunkserver  disk  state                 slots  used       of         address                labels\n".to_owned()];
    for server in &status.servers {
        let labels: Vec<_> = server.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        for (target, report) in &server.targets {
            rows.push(row(status, target, report.as_ref(), &labels.join(" ")));
        }
    }
    rows.concat()
}

fn row(status: &Status, target: &Target, report: Option<&TargetStatus>, labels: &str) -> String {
    let held = slots(status).filter(|slot| slot.holder == Some(target.id)).count();
    let (used, total) = report.map_or((0, target.capacity_bytes), |report| (report.used_bytes, report.total_bytes));
    format!(
        "{:<12} {:<5} {:<21} {:>5}  {:<10} {:<10} {:<22} {labels}\n",
        target.server.to_string(),
        target.id.to_string(),
        state(status, target),
        held,
        human(used),
        human(total),
        target.address.to_string(),
    )
}

fn slots(status: &Status) -> impl Iterator<Item = &Slot> {
    status.pools.iter().flat_map(|pool| &pool.groups).flat_map(|group| &group.slots)
}

/// How many slots have or had the target as their holder: while there are any, it may have the only copy of something.
fn named(status: &Status, target: TargetId) -> usize {
    slots(status).filter(|slot| slot.holder == Some(target) || slot.previous == Some(target)).count()
}

fn state(status: &Status, target: &Target) -> String {
    match (target.state, named(status, target.id)) {
        (TargetState::Draining, 0) => "drained".to_owned(),
        (TargetState::Draining, left) => format!("draining, {left} left"),
        (TargetState::Dead, 0) => "dead, rebuilt".to_owned(),
        (TargetState::Dead, left) => format!("dead, {left} left"),
        (state, _) => format!("{state:?}").to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::state;
    use cairn_common::ids::{MapEpoch, PoolId, ServerId, TargetId};
    use cairn_common::map::{Group, Pool, Slot, Target, TargetState};
    use cairn_common::scheme::Scheme;
    use cairn_common::wire::master::Status;
    use std::collections::BTreeMap;
    use std::net::SocketAddr;

    #[test]
    fn a_server_that_no_slot_names_can_go() {
        let address = SocketAddr::from(([10, 0, 0, 1], 1));
        let slots = vec![Slot { holder: Some(TargetId(1)), previous: Some(TargetId(2)) }];
        let pool = Pool {
            id: PoolId(1),
            name: "default".to_owned(),
            scheme: Scheme::new(1, 0).unwrap(),
            prefix_bits: 0,
            groups: vec![Group { slots }],
            labels: BTreeMap::new(),
        };
        let status = Status {
            cluster: [0; 16],
            epoch: MapEpoch(1),
            master_address: address,
            pools: vec![pool],
            servers: Vec::new(),
            sessions: Vec::new(),
            inodes: 0,
            chunks: 0,
            chunk_bytes: 0,
            notes: Vec::new(),
            compaction: Default::default(),
        };
        let target = |id, state| Target {
            id: TargetId(id),
            server: ServerId(id),
            address,
            state,
            full: false,
            capacity_bytes: 1,
            labels: BTreeMap::new(),
        };
        use TargetState::{Dead, Draining, Serving};
        let shown = |id, at| state(&status, &target(id, at));
        assert_eq!([shown(2, Draining), shown(3, Draining)], ["draining, 1 left", "drained"]);
        assert_eq!([shown(2, Dead), shown(3, Dead), shown(1, Serving)], ["dead, 1 left", "dead, rebuilt", "serving"]);
    }
}
