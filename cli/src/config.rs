//! `~/.config/cairn/config.toml`: what a user does not want to say each time.
//!
//! ```toml
//! profile = "home"                 # which counts when neither --profile nor $CAIRN_PROFILE names one
//! [profiles.home]
//! master = "nas"
//! [profiles.work]
//! master = "storage-1:7440"
//! identity = "/home/me/.config/cairn/work"
//! cache = 1024
//! ```
//!
//! A flag counts before a variable of the environment, that before the profile, and that before the default. The profile takes the place of the
//! defaults in the command line's grammar, so that there is but one place that knows all this: clap. Roles of servers take nothing from it
//! that concerns clients.

use crate::places;
use anyhow::{Context, Result, bail};
use cairn_runtime::disk::Disk;
use cairn_runtime::real::disk::RealDisk;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Names the file instead of the usual one.
const FILE_VARIABLE: &str = "CAIRN_CONFIG";
const FILE_BYTES_MAX: usize = 1 << 20;

/// Whose flag a setting stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Everybody,
    /// Whoever uses a cluster, rather than being one of its servers.
    Clients,
    Mount,
}

/// Something that may be set.
#[derive(Debug)]
struct Setting {
    name: &'static str,
    /// Its flag: `--` and this.
    flag: &'static str,
    /// As clap knows it.
    id: &'static str,
    scope: Scope,
    default: &'static str,
}

const SETTINGS: [Setting; 9] = [
    Setting { name: "master", flag: "master", id: "master", scope: Scope::Clients, default: "the one remembered with the certificate" },
    Setting { name: "identity", flag: "identity", id: "identity", scope: Scope::Clients, default: "~/.config/cairn" },
    Setting { name: "log-format", flag: "log-format", id: "log_format", scope: Scope::Everybody, default: "text" },
    Setting { name: "cache", flag: "cache", id: "cache", scope: Scope::Mount, default: "256" },
    Setting { name: "write-buffer", flag: "write-buffer", id: "write_buffer", scope: Scope::Mount, default: "256" },
    Setting { name: "compaction-rate", flag: "compaction-rate", id: "compaction_rate", scope: Scope::Mount, default: "32" },
    Setting { name: "master-wait", flag: "master-wait", id: "master_wait", scope: Scope::Mount, default: "600" },
    Setting { name: "metrics", flag: "metrics", id: "metrics", scope: Scope::Mount, default: "none" },
    Setting { name: "options", flag: "o", id: "options", scope: Scope::Mount, default: "none" },
];

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Flag(&'static str),
    Variable(&'static str),
    Profile(String),
    Default,
}

/// A setting as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub name: &'static str,
    pub value: String,
    pub origin: Origin,
}

/// The profile that counts.
#[derive(Debug, Default)]
pub struct Config {
    pub path: Option<PathBuf>,
    pub profile: Option<String>,
    values: BTreeMap<&'static str, String>,
}

impl Config {
    /// Reads the profile that is wanted, or the file's own choice.
    pub fn load(wanted: Option<&str>) -> Result<Self> {
        let named = std::env::var_os(FILE_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        // A server may have no home: it needs none.
        let Some(path) = named.clone().or_else(|| places::default_identity().ok().map(|directory| directory.join("config.toml"))) else {
            return Ok(Self::default());
        };
        let disk: &dyn Disk = &RealDisk;
        let exists = match disk.exists(&path) {
            // Whose home may not be looked into is not who lives there: `setpriv`, `sudo -u`, a service.
            Err(error) if named.is_none() && error.kind() == ErrorKind::PermissionDenied => false,
            found => found.with_context(|| format!("cannot look at {}", path.display()))?,
        };
        if !exists {
            return match (named, wanted) {
                (Some(_), _) => bail!("{}, which ${FILE_VARIABLE} names, does not exist", path.display()),
                (None, Some(wanted)) => bail!("there is no profile {wanted}: {} does not exist", path.display()),
                (None, None) => Ok(Self { path: Some(path), ..Self::default() }),
            };
        }
        let text = disk.read(&path, FILE_BYTES_MAX).with_context(|| format!("cannot read {}", path.display()))?;
        let text = String::from_utf8(text).with_context(|| format!("{} is not text", path.display()))?;
        Self::parse(&text, wanted, path.clone()).with_context(|| format!("{} is wrong", path.display()))
    }

    fn parse(text: &str, wanted: Option<&str>, path: PathBuf) -> Result<Self> {
        let file: toml::Table = text.parse()?;
        if let Some(strange) = file.keys().find(|key| !matches!(key.as_str(), "profile" | "profiles")) {
            bail!("{strange} is not known at the top: there are `profile = NAME` and tables [profiles.NAME]");
        }
        let own = file.get("profile").map(|name| name.as_str().context("profile is a name in quotes")).transpose()?;
        let Some(name) = wanted.or(own) else { return Ok(Self { path: Some(path), ..Self::default() }) };
        let profiles = file.get("profiles").and_then(toml::Value::as_table);
        let profile = profiles.and_then(|profiles| profiles.get(name)).and_then(toml::Value::as_table);
        let known = || profiles.map_or(String::new(), |profiles| profiles.keys().cloned().collect::<Vec<_>>().join(", "));
        let profile = profile.with_context(|| format!("there is no profile {name}; there are: {}", known()))?;
        let values = profile.iter().map(|(key, value)| setting(name, key, value)).collect::<Result<_>>()?;
        Ok(Self { path: Some(path), profile: Some(name.to_owned()), values })
    }

    /// The grammar with the profile's values in the place of the defaults.
    pub fn apply(&self, command: Command, said: &ArgMatches) -> Command {
        let values = self.values.iter().filter_map(|(name, value)| Some((SETTINGS.iter().find(|setting| setting.name == *name)?, value)));
        // Who names the master's directory means that master.
        let names_master = said_data(said);
        let values: Vec<_> = values.filter(|(setting, _)| !(names_master && setting.scope == Scope::Clients)).collect();
        with_defaults(command, &values, 0)
    }

    /// All settings, of a command that was called like this.
    pub fn show(&self, said: &ArgMatches) -> Vec<Found> {
        SETTINGS.iter().map(|setting| self.find(setting, said)).collect()
    }

    fn find(&self, setting: &'static Setting, said: &ArgMatches) -> Found {
        let explicit = said.try_contains_id(setting.id).is_ok_and(|is_there| is_there).then(|| said.value_source(setting.id)).flatten();
        let value = || {
            let raw: Vec<&std::ffi::OsStr> = said.get_raw(setting.id).into_iter().flatten().collect();
            raw.iter().map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(",")
        };
        let (value, origin) = match (explicit, self.values.get(setting.name), &self.profile) {
            (Some(ValueSource::CommandLine), ..) => (value(), Origin::Flag(setting.flag)),
            (Some(ValueSource::EnvVariable), ..) => (value(), Origin::Variable(variable(setting))),
            (_, Some(value), Some(profile)) => (value.clone(), Origin::Profile(profile.clone())),
            _ => (setting.default.to_owned(), Origin::Default),
        };
        Found { name: setting.name, value, origin }
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

fn variable(setting: &Setting) -> &'static str {
    match setting.id {
        "master" => "CAIRN_MASTER",
        "identity" => "CAIRN_IDENTITY",
        _ => "the environment",
    }
}

fn setting(profile: &str, key: &str, value: &toml::Value) -> Result<(&'static str, String)> {
    let known = || SETTINGS.iter().map(|setting| setting.name).collect::<Vec<_>>().join(", ");
    let setting = SETTINGS.iter().find(|setting| setting.name == key);
    let setting = setting.with_context(|| format!("{key} in profile {profile} is not known; there are: {}", known()))?;
    let value = match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        _ => bail!("{key} in profile {profile} must be text in quotes, or a number"),
    };
    Ok((setting.name, value))
}

/// Whether `--data` was given to the command that is run.
fn said_data(said: &ArgMatches) -> bool {
    let here = said.try_contains_id("data").is_ok_and(|is_there| is_there) && said.value_source("data") == Some(ValueSource::CommandLine);
    here || said.subcommand().is_some_and(|(_, inner)| said_data(inner))
}

fn with_defaults(mut command: Command, values: &[(&'static Setting, &String)], depth: usize) -> Command {
    let is_server = depth == 1 && matches!(command.get_name(), "master" | "chunkserver" | "up");
    let is_mount = depth == 1 && command.get_name() == "mount";
    for (setting, value) in values {
        let applies = match setting.scope {
            Scope::Everybody => true,
            Scope::Clients => !is_server,
            Scope::Mount => is_mount,
        };
        if applies && command.get_arguments().any(|argument| argument.get_id() == setting.id) {
            command = command.mut_arg(setting.id, |argument| argument.default_value((*value).clone()));
        }
    }
    let names: Vec<String> = command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    names.iter().fold(command, |command, name| command.mut_subcommand(name, |inner| with_defaults(inner, values, depth + 1)))
}

/// Who names the master's directory means that master, whatever the environment says of another one.
fn grammar_for(command: Command, words: &[OsString]) -> Command {
    let names_master = words.iter().any(|word| word.to_str().is_some_and(|word| word == "--data" || word.starts_with("--data=")));
    if names_master { without_environment(command) } else { command }
}

fn without_environment(command: Command) -> Command {
    let has = |command: &Command, id: &str| command.get_arguments().any(|argument| argument.get_id() == id);
    let may_name_master = has(&command, "data") && has(&command, "identity");
    let strangers = ["master", "token", "identity"].into_iter().filter(|id| may_name_master && has(&command, id)).collect::<Vec<_>>();
    let command = strangers.into_iter().fold(command, |command, id| command.mut_arg(id, |argument| argument.env(None::<&'static str>)));
    let names: Vec<String> = command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
    names.iter().fold(command, |command, name| command.mut_subcommand(name, without_environment))
}

/// The arguments and the profile that goes with them.
pub fn parse<T: clap::FromArgMatches + clap::CommandFactory>(words: &[OsString]) -> Result<(T, Config, ArgMatches)> {
    let grammar = || grammar_for(T::command(), words);
    let said = grammar().get_matches_from(words);
    let config = Config::load(said.get_one::<String>("profile").map(String::as_str))?;
    let matches = if config.is_empty() { said } else { config.apply(grammar(), &said).get_matches_from(words) };
    let arguments = T::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    Ok((arguments, config, matches))
}

/// A path for people: the home directory as `~`.
pub fn shown(path: &Path) -> String {
    match places::home().ok().and_then(|home| path.strip_prefix(home).ok().map(Path::to_owned)) {
        Some(inside) => format!("~/{}", inside.display()),
        None => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, Origin};
    use crate::arguments::{Arguments, Command as Wanted};
    use clap::{CommandFactory, FromArgMatches};
    use std::ffi::OsString;
    use std::path::PathBuf;

    const FILE: &str = r#"
        profile = "home"
        [profiles.home]
        master = "nas"
        cache = 512
        [profiles.work]
        master = "10.0.0.1:7441"
        identity = "/work"
    "#;

    fn config(wanted: Option<&str>) -> Config {
        Config::parse(FILE, wanted, PathBuf::from("/x/config.toml")).unwrap()
    }

    fn mount(words: &str, config: &Config) -> crate::arguments::Mount {
        let words = words.split(' ');
        let said = Arguments::command().get_matches_from(words.clone());
        let matches = config.apply(Arguments::command(), &said).get_matches_from(words);
        match Arguments::from_arg_matches(&matches).unwrap().command {
            Wanted::Mount(mount) => mount,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_count_before_the_profile_and_that_before_the_default() {
        let home = config(None);
        let shown =
            |mount: &crate::arguments::Mount| (mount.access.master.as_ref().map(ToString::to_string), mount.cache, mount.write_buffer);
        assert_eq!(shown(&mount("cairn mount /m", &home)), (Some("nas:7440".to_owned()), 512, 256));
        assert_eq!(shown(&mount("cairn mount --master b --cache 7 /m", &home)), (Some("b:7440".to_owned()), 7, 256));
        let work = mount("cairn mount /m", &config(Some("work")));
        assert_eq!((work.access.identity, work.cache), (Some(PathBuf::from("/work")), 256));
    }

    #[test]
    fn who_names_the_masters_directory_means_that_master() {
        let words = ["cairn", "status", "--data", "/d"];
        let said = Arguments::command().get_matches_from(words);
        let matches = config(Some("work")).apply(Arguments::command(), &said).get_matches_from(words);
        let Wanted::Status(status) = Arguments::from_arg_matches(&matches).unwrap().command else { panic!("status") };
        assert_eq!((status.access.master.is_none(), status.access.identity), (true, None));
    }

    #[test]
    fn nor_does_the_environment_count_then() {
        let heeds_environment = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            let grammar = super::grammar_for(Arguments::command(), &words);
            let command = words[1..].iter().filter_map(|word| word.to_str()).take_while(|word| !word.starts_with('-'));
            let command = command.fold(&grammar, |command, name| command.find_subcommand(name).expect(name));
            command.get_arguments().any(|argument| argument.get_env().is_some_and(|name| name != "CAIRN_PROFILE"))
        };
        assert!(heeds_environment(&["cairn", "status"]) && heeds_environment(&["cairn", "session", "list"]));
        assert!(!heeds_environment(&["cairn", "status", "--data", "/d"]));
        assert!(!heeds_environment(&["cairn", "session", "list", "--data=/d"]));
        assert!(heeds_environment(&["cairn", "chunkserver", "--data", "/d"]), "it joins the master that the environment names");
    }

    #[test]
    fn servers_take_no_master_from_it() {
        let words = ["cairn", "chunkserver", "--data", "/d"];
        let said = Arguments::command().get_matches_from(words);
        let matches = config(None).apply(Arguments::command(), &said).get_matches_from(words);
        let Wanted::Chunkserver(chunkserver) = Arguments::from_arg_matches(&matches).unwrap().command else { panic!("chunkserver") };
        assert!(chunkserver.role.master.is_none());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |text: &str, wanted| format!("{:#}", Config::parse(text, wanted, PathBuf::new()).unwrap_err());
        assert!(wrong(FILE, Some("away")).contains("no profile away; there are: home, work"), "{}", wrong(FILE, Some("away")));
        assert!(wrong("[profiles.a]\nmastre = 1", Some("a")).contains("mastre in profile a is not known"));
        assert!(wrong("[profiles.a]\ncache = true", Some("a")).contains("must be text"));
        assert!(wrong("master = 1", None).contains("master is not known at the top"));
    }

    #[test]
    fn each_value_has_an_origin() {
        let said = Arguments::command().get_matches_from(["cairn", "config", "show", "--identity", "/i"]);
        let leaf = said.subcommand().and_then(|(_, inner)| inner.subcommand()).unwrap().1;
        let found = config(None).show(leaf);
        let of = |name| found.iter().find(|found| found.name == name).map(|found| (found.value.as_str(), found.origin.clone())).unwrap();
        assert_eq!(of("identity"), ("/i", Origin::Flag("identity")));
        assert_eq!(of("cache"), ("512", Origin::Profile("home".to_owned())));
        assert_eq!(of("write-buffer"), ("256", Origin::Default));
        // Unless whoever runs the tests has the variable set.
        if std::env::var_os("CAIRN_MASTER").is_none() {
            assert_eq!(of("master"), ("nas", Origin::Profile("home".to_owned())));
        }
    }
}
