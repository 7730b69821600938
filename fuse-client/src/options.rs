//! Mount options as people type them after `-o`.

use fuser::{Config, MountOption, SessionACL};
use std::str::FromStr;

/// What `-o` said. Permission checks by mode bits are always on (`default_permissions`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOptions {
    pub read_only: bool,
    pub allow_other: bool,
    pub allow_root: bool,
    /// Mount over a directory that has entries.
    pub nonempty: bool,
    kernel: Vec<MountOption>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "mount option {0:?} is not known; these are: ro, rw, allow_other, allow_root, nonempty, default_permissions, dev, nodev, suid, nosuid, exec, noexec, atime, noatime, relatime, sync, async, dirsync, fsname=NAME, subtype=NAME"
)]
pub struct OptionError(String);

impl MountOptions {
    /// Adds the options of one `-o` argument, a comma-separated list.
    pub fn add(&mut self, list: &str) -> Result<(), OptionError> {
        list.split(',').filter(|option| !option.is_empty()).try_for_each(|option| self.add_one(option))
    }

    fn add_one(&mut self, option: &str) -> Result<(), OptionError> {
        match option {
            "ro" => self.read_only = true,
            "rw" => self.read_only = false,
            "allow_other" => self.allow_other = true,
            "allow_root" => self.allow_root = true,
            "nonempty" => self.nonempty = true,
            // On anyway, or for mount(8) and fstab alone.
            "default_permissions" | "relatime" | "defaults" | "_netdev" | "auto" | "noauto" | "nofail" | "user" | "nouser" => {}
            _ => self.kernel.push(kernel_option(option)?),
        }
        Ok(())
    }

    /// Whether reading sets access times.
    pub fn records_access(&self) -> bool {
        !self.read_only && !self.kernel.contains(&MountOption::NoAtime)
    }

    /// For the kernel: with `threads` readers of the FUSE device.
    pub fn config(&self, source: &str, threads: usize) -> Config {
        let mut config = Config::default();
        config.mount_options.push(MountOption::DefaultPermissions);
        let named = |find: fn(&MountOption) -> bool| self.kernel.iter().any(find);
        if !named(|option| matches!(option, MountOption::FSName(_))) {
            config.mount_options.push(MountOption::FSName(source.to_owned()));
        }
        if !named(|option| matches!(option, MountOption::Subtype(_))) {
            config.mount_options.push(MountOption::Subtype("cairn".to_owned()));
        }
        config.mount_options.push(if self.read_only { MountOption::RO } else { MountOption::RW });
        config.mount_options.extend(self.kernel.iter().cloned());
        config.acl = match (self.allow_other, self.allow_root) {
            (true, _) => SessionACL::All,
            (false, true) => SessionACL::RootAndOwner,
            (false, false) => SessionACL::Owner,
        };
        config.n_threads = Some(threads);
        config.clone_fd = threads > 1;
        config
    }
}

fn kernel_option(option: &str) -> Result<MountOption, OptionError> {
    Ok(match option {
        "dev" => MountOption::Dev,
        "nodev" => MountOption::NoDev,
        "suid" => MountOption::Suid,
        "nosuid" => MountOption::NoSuid,
        "exec" => MountOption::Exec,
        "noexec" => MountOption::NoExec,
        "atime" => MountOption::Atime,
        "noatime" => MountOption::NoAtime,
        "sync" => MountOption::Sync,
        "async" => MountOption::Async,
        "dirsync" => MountOption::DirSync,
        _ => match option.split_once('=') {
            Some(("fsname", name)) => MountOption::FSName(name.to_owned()),
            Some(("subtype", name)) => MountOption::Subtype(name.to_owned()),
            _ => return Err(OptionError(option.to_owned())),
        },
    })
}

impl FromStr for MountOptions {
    type Err = OptionError;

    fn from_str(list: &str) -> Result<Self, Self::Err> {
        let mut options = Self::default();
        options.add(list)?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_understood_and_strangers_named() {
        let options: MountOptions = "ro,allow_other,,default_permissions,nodev".parse().unwrap();
        assert!(options.read_only && options.allow_other && !options.nonempty);
        let config = options.config("cairn", 2);
        assert!(config.mount_options.contains(&MountOption::RO) && config.mount_options.contains(&MountOption::NoDev));
        assert!(!options.records_access() && MountOptions::default().records_access());
        assert!(!"noatime".parse::<MountOptions>().unwrap().records_access());
        let error = "ro,shiny".parse::<MountOptions>().unwrap_err();
        assert!(error.to_string().contains("shiny"), "{error}");
    }
}
