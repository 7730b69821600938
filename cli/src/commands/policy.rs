//! `cairn policy get` and `set`: to which pool content goes.

use super::info::place::Place;
use super::link::Link;
use crate::arguments::{Operator, PolicyAction, PolicySet};
use crate::places::is_on_cairn;
use anyhow::{Context, Result, bail};
use cairn_client::{FileSystem, Settings};
use cairn_common::attributes::{Attributes, FileKind};
use cairn_common::ids::{Ino, PoolId};
use cairn_common::map::{ClusterMap, Pool, labels_text};
use cairn_common::wire::master::{MasterReply, MasterRequest};
use cairn_runtime::Runtime;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

/// How long it waits for a master that is away.
const MASTER_WAIT: Duration = Duration::from_secs(60);

pub fn run(action: PolicyAction) -> Result<()> {
    match action {
        PolicyAction::Get { path, operator, json } => super::in_role("policy", move |runtime| async move {
            let report = look(&runtime, &path, &operator).await?;
            report.print(json)
        }),
        PolicyAction::Set(options) => super::in_role("policy", move |runtime| async move {
            set(&runtime, &options).await?;
            look(&runtime, &options.path, &options.operator).await?.print(options.json)
        }),
    }
}

/// Who says where content goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "source", content = "from")]
enum Source {
    /// The directory itself.
    Own,
    /// A directory above, as far as its path is known here.
    Inherited(Option<String>),
    /// Nobody: it is the cluster's default.
    Default,
    /// It was settled when the file was made.
    File,
}

/// What `--json` prints. Fields are only ever added.
#[derive(Debug, Serialize)]
struct Report {
    path: String,
    pool: String,
    scheme: String,
    labels: BTreeMap<String, String>,
    #[serde(flatten)]
    source: Source,
}

async fn look(runtime: &Runtime, path: &OsStr, operator: &Operator) -> Result<Report> {
    let mut link = Link::new(runtime, operator.membership(runtime).await?)?;
    link.renew_map().await?;
    let place = Place::find(&mut link, path).await?;
    let (id, source) = match place.attributes.kind {
        FileKind::Regular => (place.attributes.pool, Source::File),
        FileKind::Directory => in_force(&mut link, path, &place.attributes).await?,
        _ => bail!("{} is neither a file nor a directory: it has no content that goes to a pool", place.path),
    };
    link.close();
    let pool = pool_of(&link.map, id)?;
    Ok(Report { path: place.path, pool: pool.name.clone(), scheme: pool.scheme.to_string(), labels: pool.labels.clone(), source })
}

/// Of the nearest directory with a policy.
async fn in_force(link: &mut Link, path: &OsStr, directory: &Attributes) -> Result<(Option<PoolId>, Source)> {
    let (mut at, mut levels) = (directory.clone(), 0);
    while at.pool.is_none() && at.ino != Ino::ROOT {
        at = match link.ask(&MasterRequest::Lookup { parent: at.ino, name: b"..".to_vec() }).await? {
            MasterReply::Attributes(attributes) => attributes,
            other => bail!("the master answered something else to a look-up: {other:?}"),
        };
        levels += 1;
    }
    let source = match (at.pool, levels) {
        (None, _) => Source::Default,
        (Some(_), 0) => Source::Own,
        (Some(_), levels) => Source::Inherited(above(path, levels)),
    };
    Ok((at.pool, source))
}

/// The path some levels up, if it can be told from here: not above the top of a mount.
fn above(path: &OsStr, levels: usize) -> Option<String> {
    let text = path.to_string_lossy();
    if let Some(remote) = text.strip_prefix("cairn://") {
        let names: Vec<&str> = remote.split('/').filter(|name| !name.is_empty()).collect();
        return Some(format!("cairn://{}", names[..names.len().checked_sub(levels)?].join("/")));
    }
    let real = Path::new(path).canonicalize().ok()?;
    real.ancestors().nth(levels).filter(|ancestor| is_on_cairn(ancestor)).map(|ancestor| ancestor.display().to_string())
}

fn pool_of(map: &ClusterMap, id: Option<PoolId>) -> Result<&Pool> {
    let found = match id {
        Some(id) => map.pool(id),
        None => map.pools.first(),
    };
    found.context("the master names a pool that is not on its map: `cairn fsck` tells more")
}

async fn set(runtime: &Runtime, options: &PolicySet) -> Result<()> {
    let member = options.operator.membership(runtime).await?;
    let mut link = Link::new(runtime, member.clone())?;
    link.renew_map().await?;
    let pool = if options.inherit { None } else { Some(wanted(options, &link.map)?.id) };
    let place = Place::find(&mut link, &options.path).await?;
    link.close();
    if place.attributes.kind != FileKind::Directory {
        bail!("{} is not a directory: a policy belongs to a directory, and files that are made below it follow it", place.path);
    }
    let mut settings = Settings::new(member.master, member.credentials);
    settings.description = format!("policy of process {}", std::process::id());
    settings.master_wait = MASTER_WAIT;
    settings.compaction_bytes_per_second = 0;
    let fs = FileSystem::connect(runtime.clone(), settings).await?;
    let outcome = fs.set_policy(place.attributes.ino, pool).await;
    fs.shutdown().await.context("cannot end the session")?;
    outcome.with_context(|| format!("the policy of {} was not set", place.path))?;
    Ok(())
}

/// The pool that was asked for, by its name or by what it is.
fn wanted<'m>(options: &PolicySet, map: &'m ClusterMap) -> Result<&'m Pool> {
    let known = || map.pools.iter().map(described).collect::<Vec<_>>().join("; ");
    if let Some(name) = &options.pool {
        return map
            .pools
            .iter()
            .find(|pool| pool.name == *name)
            .with_context(|| format!("there is no pool {name}; there are: {}", known()));
    }
    let labels: BTreeMap<String, String> = options.labels.iter().cloned().collect();
    let fits = |pool: &&Pool| options.scheme.is_none_or(|scheme| pool.scheme == scheme) && pool.labels == labels;
    let fitting: Vec<&Pool> = map.pools.iter().filter(fits).collect();
    match fitting[..] {
        [only] => Ok(only),
        [] => bail!("no pool is like that; there are: {}. `cairn pool create` makes another", known()),
        _ => bail!(
            "several pools are like that; name one with --pool: {}",
            fitting.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>().join(", ")
        ),
    }
}

fn described(pool: &Pool) -> String {
    format!("{} ({})", pool.name, nature(&pool.scheme.to_string(), &pool.labels))
}

fn nature(scheme: &str, labels: &BTreeMap<String, String>) -> String {
    if labels.is_empty() { scheme.to_owned() } else { format!("{scheme} on {}", labels_text(labels)) }
}

impl Report {
    fn print(&self, json: bool) -> Result<()> {
        if json {
            return super::print(&(serde_json::to_string_pretty(self)? + "\n"));
        }
        super::print(&self.text())
    }

    fn text(&self) -> String {
        let Self { path, pool, scheme, labels, source } = self;
        let reason = match source {
            Source::Own => "by its own policy".to_owned(),
            Source::Inherited(Some(from)) => format!("by the policy of {from}"),
            Source::Inherited(None) => "by the policy of a directory above the mount".to_owned(),
            Source::Default => "for no directory above has a policy".to_owned(),
            Source::File => "since the file was made".to_owned(),
        };
        format!("{path}: pool {pool} ({}), {reason}\n", nature(scheme, labels))
    }
}

#[cfg(test)]
mod tests {
    use super::{Report, Source, above, wanted};
    use crate::arguments::PolicySet;
    use cairn_common::ids::{MapEpoch, PoolId};
    use cairn_common::map::{ClusterMap, Pool};
    use clap::{Args, FromArgMatches};
    use std::ffi::OsStr;

    fn map() -> ClusterMap {
        let pool = |id, name: &str, scheme: &str, media: &str| Pool {
            id: PoolId(id),
            name: name.to_owned(),
            scheme: scheme.parse().unwrap(),
            prefix_bits: 0,
            groups: Vec::new(),
            labels: if media.is_empty() { Default::default() } else { [("media".to_owned(), media.to_owned())].into() },
        };
        let pools =
            vec![pool(1, "default", "4+2", ""), pool(2, "fast", "1+2", "ssd"), pool(3, "wide", "8+2", "ssd"), pool(4, "copy", "4+2", "")];
        ClusterMap { epoch: MapEpoch(1), pools, targets: Vec::new() }
    }

    fn chosen(words: &[&str]) -> String {
        let command = PolicySet::augment_args(clap::Command::new("set"));
        let matches = command.try_get_matches_from([&["set", "cairn://a"], words].concat()).unwrap();
        match wanted(&PolicySet::from_arg_matches(&matches).unwrap(), &map()) {
            Ok(pool) => pool.name.clone(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_pool_is_named_or_described() {
        assert_eq!(chosen(&["--pool", "wide"]), "wide");
        assert_eq!(chosen(&["--scheme", "1+2", "--labels", "media=ssd"]), "fast");
        assert!(chosen(&["--pool", "gold"]).starts_with("there is no pool gold; there are: default (4+2); fast (1+2 on media=ssd);"));
        assert!(chosen(&["--scheme", "1+2"]).contains("no pool is like that"), "labels count exactly");
        assert_eq!(chosen(&["--scheme", "4+2"]), "several pools are like that; name one with --pool: default, copy");
    }

    #[test]
    fn where_a_policy_comes_from_is_told() {
        assert_eq!(above(OsStr::new("cairn://a//b/c/"), 2).as_deref(), Some("cairn://a"));
        assert_eq!(above(OsStr::new("cairn://a"), 1).as_deref(), Some("cairn://"));
        let report = |source| Report {
            path: "cairn://a".to_owned(),
            pool: "fast".to_owned(),
            scheme: "1+2".to_owned(),
            labels: [("media".to_owned(), "ssd".to_owned())].into(),
            source,
        };
        assert_eq!(report(Source::Own).text(), "cairn://a: pool fast (1+2 on media=ssd), by its own policy\n");
        let json = serde_json::to_value(report(Source::Inherited(Some("cairn://".to_owned())))).unwrap();
        assert_eq!((json["source"].as_str(), json["from"].as_str()), (Some("inherited"), Some("cairn://")));
        assert_eq!(serde_json::to_value(report(Source::Default)).unwrap()["source"], "default");
    }
}
