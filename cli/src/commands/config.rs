//! `cairn config show`

use crate::arguments::ConfigAction;
use crate::config::{Config, Found, Origin, shown};
use crate::places;
use anyhow::Result;
use clap::ArgMatches;
use serde_json::json;

/// `said`: what the whole command line said.
pub fn run(action: &ConfigAction, config: &Config, said: &ArgMatches) -> Result<()> {
    let ConfigAction::Show { access, json } = action;
    let leaf = said.subcommand().and_then(|(_, inner)| inner.subcommand()).map_or(said, |(_, leaf)| leaf);
    let mut found = config.show(leaf);
    // Where that is depends on what there is: `cairn up` has one of its own.
    for one in found.iter_mut().filter(|one| one.name == "identity" && one.origin == Origin::Default) {
        one.value = places::identity(access).map_or_else(|error| error.to_string(), |directory| shown(&directory));
    }
    if *json {
        let settings: Vec<_> =
            found.iter().map(|found| json!({ "name": found.name, "value": found.value, "from": origin(found) })).collect();
        let report = json!({ "file": config.path, "profile": config.profile, "settings": settings });
        return super::print(&(serde_json::to_string_pretty(&report)? + "\n"));
    }
    super::print(&table(config, &found))
}

fn table(config: &Config, found: &[Found]) -> String {
    let file = config.path.as_deref().map_or("none: HOME is not set".to_owned(), shown);
    let profile = config.profile.as_deref().unwrap_or("none");
    let mut text = format!("file: {file}\nprofile: {profile}\n\nsetting          value                                     from\n");
    for one in found {
        text += &format!("{:<16} {:<41} {}\n", one.name, one.value, origin(one));
    }
    text
}

fn origin(found: &Found) -> String {
    match &found.origin {
        Origin::Flag(flag) if flag.len() == 1 => format!("-{flag}"),
        Origin::Flag(flag) => format!("--{flag}"),
        Origin::Variable(name) => format!("${name}"),
        Origin::Profile(name) => format!("profile {name}"),
        Origin::Default => "default".to_owned(),
    }
}
