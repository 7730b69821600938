//! `cairn pool list`, `show` and `create`

use super::ask_first::go_on;
use super::status::PoolReport;
use crate::arguments::{Operator, PoolAction, PoolCreate};
use crate::identity::ask;
use anyhow::{Context, Result, bail};
use cairn_common::ids::TargetId;
use cairn_common::map::{Pool, TargetState};
use cairn_common::wire::master::{MasterError, MasterReply, MasterRequest, Status};
use cairn_objects::size::human;
use serde::Serialize;
use std::collections::BTreeMap;

pub fn run(action: PoolAction) -> Result<()> {
    match action {
        PoolAction::List { operator, json } => list(operator, json),
        PoolAction::Show { name, operator, json } => show(name, operator, json),
        PoolAction::Create(options) => create(options),
    }
}

/// What `show --json` prints. Fields are only ever added.
#[derive(Debug, Serialize)]
struct PoolDetail {
    #[serde(flatten)]
    summary: PoolReport,
    /// `1 << prefix_bits` groups.
    prefix_bits: u8,
    data_shards: u8,
    parity_shards: u8,
    holders: Vec<Holder>,
}

/// A disk that holds slots of the pool.
#[derive(Debug, Serialize)]
struct Holder {
    target: String,
    chunkserver: String,
    state: TargetState,
    slots: usize,
    /// Of them, those whose shards it does not have all yet.
    moving_here: usize,
    used_bytes: u64,
    labels: BTreeMap<String, String>,
}

fn list(operator: Operator, json: bool) -> Result<()> {
    super::in_role("pool", move |runtime| async move {
        let status = super::status::fetch(&runtime, &operator).await?;
        let pools: Vec<_> = status.pools.iter().map(|pool| PoolReport::of(pool, &status)).collect();
        if json {
            return super::print(&(serde_json::to_string_pretty(&pools)? + "\n"));
        }
        super::print(&PoolReport::table(&pools))
    })
}

fn show(name: String, operator: Operator, json: bool) -> Result<()> {
    super::in_role("pool", move |runtime| async move {
        let status = super::status::fetch(&runtime, &operator).await?;
        let detail = PoolDetail::new(find(&name, &status)?, &status);
        if json {
            return super::print(&(serde_json::to_string_pretty(&detail)? + "\n"));
        }
        super::print(&detail.text())
    })
}

fn find<'s>(name: &str, status: &'s Status) -> Result<&'s Pool> {
    let known = || status.pools.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>().join(", ");
    status.pools.iter().find(|pool| pool.name == name).with_context(|| format!("there is no pool {name}; there are: {}", known()))
}

fn create(options: PoolCreate) -> Result<()> {
    super::in_role("pool", move |runtime| async move {
        let member = options.operator.membership(&runtime).await?;
        let labels: BTreeMap<String, String> = options.labels.iter().cloned().collect();
        let request =
            |insist| MasterRequest::CreatePool { name: options.name.clone(), scheme: options.scheme, labels: labels.clone(), insist };
        let mut answer = ask(&runtime, member.master, member.credentials.clone(), &request(options.yes)).await;
        if let Err(error) = &answer
            && let Some(MasterError::Unwise(cost)) = error.downcast_ref()
        {
            if !go_on(cost, false)? {
                return Ok(());
            }
            answer = ask(&runtime, member.master, member.credentials, &request(true)).await;
        }
        let MasterReply::PoolCreated { .. } = answer? else { bail!("the master answered something else to a new pool") };
        let status = super::status::fetch(&runtime, &options.operator).await?;
        let pool = find(&options.name, &status)?;
        if options.json {
            return super::print(&(serde_json::to_string_pretty(&PoolDetail::new(pool, &status))? + "\n"));
        }
        let name = &options.name;
        super::print(&format!("pool {name} is there; `cairn policy set PATH --pool {name}` sends the content of new files to it\n"))
    })
}

impl PoolDetail {
    fn new(pool: &Pool, status: &Status) -> Self {
        let mut slots: BTreeMap<TargetId, (usize, usize)> = BTreeMap::new();
        for slot in pool.groups.iter().flat_map(|group| &group.slots) {
            if let Some(holder) = slot.holder {
                let (all, moving) = slots.entry(holder).or_default();
                *all += 1;
                *moving += usize::from(slot.previous.is_some());
            }
        }
        let targets = status.servers.iter().flat_map(|server| &server.targets);
        let holders = targets.filter_map(|(target, report)| {
            let (all, moving_here) = *slots.get(&target.id)?;
            Some(Holder {
                target: target.id.to_string(),
                chunkserver: target.server.to_string(),
                state: target.state,
                slots: all,
                moving_here,
                used_bytes: report.as_ref().map_or(0, |report| report.used_bytes),
                labels: target.labels.clone(),
            })
        });
        Self {
            summary: PoolReport::of(pool, status),
            prefix_bits: pool.prefix_bits,
            data_shards: pool.scheme.data_shards(),
            parity_shards: pool.scheme.parity_shards(),
            holders: holders.collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = PoolReport::table(std::slice::from_ref(&self.summary));
        text += &format!(
            "\n{} data shards and {} parity shards: any {} disks of a group may be lost; raw space is {:.2} times the content\n\n",
            self.data_shards,
            self.parity_shards,
            self.parity_shards,
            f64::from(self.data_shards + self.parity_shards) / f64::from(self.data_shards)
        );
        text += "disk  chunkserver  state     slots  moving here  used       labels\n";
        for holder in &self.holders {
            let labels: Vec<_> = holder.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let state = format!("{:?}", holder.state).to_lowercase();
            let Holder { target, chunkserver, slots, moving_here, used_bytes, .. } = holder;
            text += &format!(
                "{target:<5} {chunkserver:<12} {state:<9} {slots:>5} {moving_here:>12}  {:<10} {}\n",
                human(*used_bytes),
                labels.join(" ")
            );
        }
        text
    }
}
