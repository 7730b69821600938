//! `mount.cairn`: what mount(8) calls for `mount -t cairn` and for a line of /etc/fstab. It is this binary under that name (a symbolic link in /sbin),
//! and says the same as `cairn mount --background`.
//!
//! ```text
//! mount.cairn SOURCE DIR [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]
//! ```
//!
//! SOURCE is `HOST`, `HOST:PORT`, either with `:/DIRECTORY` behind it, or `:/DIRECTORY` or `cairn` for the master that the identity remembers.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The name under which mount(8) calls.
const NAME: &str = "mount.cairn";
/// Options of a mount that are flags of `cairn mount`, with a value.
const FLAGS: [&str; 9] = ["identity", "token", "profile", "log", "metrics", "cache", "write_buffer", "compaction_rate", "master_wait"];

/// What a call comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Called {
    /// The words of a command line of `cairn`.
    Words(Vec<OsString>),
    /// mount(8) only wanted to know whether it would be called.
    Nothing,
}

/// The words of the command line, translated if mount(8) called.
pub fn words(given: Vec<OsString>) -> Called {
    let name = given.first().and_then(|name| Path::new(name).file_name());
    if name == Some(OsStr::new(NAME)) { translate(given) } else { Called::Words(given) }
}

fn translate(given: Vec<OsString>) -> Called {
    let mut given = given.into_iter();
    let mut words: Vec<OsString> = given.next().into_iter().collect();
    words.extend(["mount".into(), "--background".into()]);
    let (mut places, mut rest) = (Vec::new(), Vec::new());
    while let Some(word) = given.next() {
        match word.to_str() {
            Some("-o") => take_options(&given.next().unwrap_or_default().to_string_lossy(), &mut words, &mut rest),
            Some("-N" | "-t") => drop(given.next()),
            Some(flags) if flags.starts_with('-') && flags.contains('f') => return Called::Nothing,
            Some("-v") => words.push("-v".into()),
            Some(flags) if flags.starts_with('-') && flags.len() > 1 => {}
            _ => places.push(word),
        }
    }
    let mut places = places.into_iter();
    let (master, remote) = source(&places.next().unwrap_or_default().to_string_lossy());
    if let Some(master) = master {
        words.extend(["--master".into(), master.into()]);
    }
    if !rest.is_empty() {
        words.extend(["-o".into(), rest.join(",").into()]);
    }
    words.extend(remote.map(OsString::from));
    // Without a directory clap tells what is missing.
    words.extend(places);
    Called::Words(words)
}

/// The master and the directory in CairnFS that a source names.
fn source(source: &str) -> (Option<String>, Option<String>) {
    let (master, remote) = match source.find(":/") {
        Some(at) => (&source[..at], Some(source[at + 1..].to_owned())),
        None => (source, None),
    };
    let is_named = !matches!(master, "" | "cairn" | "none");
    (is_named.then(|| master.to_owned()), remote.filter(|remote| remote != "/"))
}

fn take_options(list: &str, words: &mut Vec<OsString>, rest: &mut Vec<String>) {
    for option in list.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some((name, value)) if FLAGS.contains(&name) => words.extend([format!("--{}", name.replace('_', "-")).into(), value.into()]),
            // For mount(8) and systemd alone.
            _ if option.starts_with("x-") || option.starts_with("comment=") => {}
            _ if matches!(option, "users" | "group" | "owner" | "nousers") => {}
            _ => rest.push(option.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Called, words};

    fn translated(line: &str) -> String {
        match words(line.split(' ').map(Into::into).collect()) {
            Called::Words(words) => words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "),
            Called::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn only_mount_is_translated_for() {
        assert_eq!(translated("/usr/bin/cairn status --json"), "/usr/bin/cairn status --json");
    }

    #[test]
    fn a_line_of_fstab_becomes_a_mount() {
        let start = "/sbin/mount.cairn mount --background";
        let table = [
            ("nas /srv -o rw,noatime,_netdev", "--master nas -o rw,noatime,_netdev /srv"),
            ("nas:7440:/data /srv -s -o rw", "--master nas:7440 -o rw /data /srv"),
            (":/data /srv -v", "-v /data /srv"),
            ("cairn /srv -n", "/srv"),
            ("[fd00::1]:7440:/ /srv", "--master [fd00::1]:7440 /srv"),
            (
                "cairn /srv -o rw,identity=/etc/cairn,x-systemd.requires=y,write_buffer=64 -t fuse.cairn",
                "--identity /etc/cairn --write-buffer 64 -o rw /srv",
            ),
        ];
        for (given, expected) in table {
            assert_eq!(translated(&format!("/sbin/mount.cairn {given}")), format!("{start} {expected}"), "{given}");
        }
        assert_eq!(translated("mount.cairn nas /srv -sf"), "nothing");
    }
}
