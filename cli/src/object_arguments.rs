//! The command lines of the commands for users' files.

use crate::arguments::Access;
use cairn_objects::filter::{Filter, Glob, Verdict};
use cairn_objects::place::PlaceError;
use cairn_objects::{Place, RemotePath, size};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

fn remote() -> impl TypedValueParser<Value = RemotePath> {
    OsStringValueParser::new().try_map(|text| RemotePath::parse(&text))
}

fn place() -> impl TypedValueParser<Value = Place> {
    OsStringValueParser::new().try_map(|text| Place::parse(&text))
}

fn bucket() -> impl TypedValueParser<Value = RemotePath> {
    OsStringValueParser::new()
        .try_map(|text| RemotePath::parse(&text).and_then(|path| if path.is_bucket() { Ok(path) } else { Err(PlaceError::NotRemote) }))
}

/// What most commands that print can do.
#[derive(Debug, Clone, Args)]
pub struct Printing {
    /// Sizes for people: 1.5 GiB instead of 1610612736.
    #[arg(short = 'H', long)]
    pub human: bool,
    /// One JSON object per line instead of text.
    #[arg(long)]
    pub json: bool,
}

/// What all commands that transfer content can do.
#[derive(Debug, Clone, Args)]
pub struct Transferring {
    #[command(flatten)]
    pub filter: FilterArguments,
    /// Tell what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Leave what is there already as it is.
    #[arg(short, long)]
    pub no_clobber: bool,
    /// Long files, ranges of a long file, or packs of small files on their way at the same time.
    #[arg(short = 'P', long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: u16,
    /// Bytes a second at most, over all files: 500K, 10M.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub bwlimit: Option<u64>,
    /// Print nothing but errors.
    #[arg(short, long)]
    pub quiet: bool,
    /// One JSON object per line for each thing done, and one for the sum.
    #[arg(long)]
    pub json: bool,
    #[command(flatten, next_help_heading = "Connecting")]
    pub access: Access,
}

#[derive(Debug, Args)]
pub struct Copy {
    /// What to copy, and last where to: cairn://BUCKET/KEY or paths of this machine; - is standard input or output.
    ///
    /// A file goes to the name given; or into it, if that ends in a slash or is a directory. With -r, the content of a directory goes below the
    /// target: `cairn cp -r photos cairn://b/2026` makes cairn://b/2026/one.jpg. Directories that are missing are made, buckets are not.
    #[arg(value_name = "SOURCE... TARGET", num_args = 2.., required = true, value_parser = place(), verbatim_doc_comment)]
    pub places: Vec<Place>,
    /// Directories with everything in them.
    #[arg(short, long)]
    pub recursive: bool,
    /// Keep modes, times, extended attributes and hard links.
    #[arg(short, long)]
    pub preserve: bool,
    #[command(flatten)]
    pub transferring: Transferring,
}

#[derive(Debug, Args)]
pub struct Move {
    /// What to move, and last where to, as for `cairn cp`. Within CairnFS this renames, at once and at any size. Else everything is copied, and removed at the
    /// source when it is on stable storage at the target.
    #[arg(value_name = "SOURCE... TARGET", num_args = 2.., required = true, value_parser = place())]
    pub places: Vec<Place>,
    /// Directories with everything in them. Not needed for renaming.
    #[arg(short, long)]
    pub recursive: bool,
    #[command(flatten)]
    pub transferring: Transferring,
}

#[derive(Debug, Args)]
pub struct Sync {
    /// The tree that is copied: cairn://BUCKET/KEY or a directory of this machine.
    #[arg(value_name = "SOURCE", value_parser = place())]
    pub source: Place,
    /// The tree that becomes like it.
    #[arg(value_name = "TARGET", value_parser = place())]
    pub target: Place,
    /// Remove at the target what the source does not have. Tells what that is, and asks; --yes is needed where nobody can answer.
    #[arg(long)]
    pub delete: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// Files of the same size are the same, whatever their time.
    #[arg(long, conflicts_with = "checksum")]
    pub size_only: bool,
    /// Files are the same if their content is, by hash; of most files in CairnFS the hash is known without reading them.
    #[arg(long)]
    pub checksum: bool,
    /// Do not keep modes, times, extended attributes and hard links. Times differ then, so use it with --size-only or --checksum.
    #[arg(long)]
    pub no_preserve: bool,
    #[command(flatten)]
    pub transferring: Transferring,
}

#[derive(Debug, Args)]
pub struct List {
    /// What to list [default: the buckets].
    #[arg(value_name = "URI", value_parser = remote())]
    pub path: Option<RemotePath>,
    /// Also everything in the directories below.
    #[arg(short, long)]
    pub recursive: bool,
    /// Also mode, links and owner, and where symlinks lead.
    #[arg(short, long)]
    pub long: bool,
    /// A directory itself, not what is in it.
    #[arg(short, long)]
    pub directory: bool,
    /// By name, however many there are. Without it, directories of more than 10,000 entries are listed in the order in which the entries were made,
    /// which starts at once and needs no memory.
    #[arg(long)]
    pub sort: bool,
    #[command(flatten)]
    pub printing: Printing,
    #[command(flatten, next_help_heading = "Connecting")]
    pub access: Access,
}

#[derive(Debug, Args)]
pub struct Stat {
    /// What to show: cairn://BUCKET/KEY.
    #[arg(value_name = "URI", required = true, value_parser = remote())]
    pub paths: Vec<RemotePath>,
    /// Follow a symlink.
    #[arg(short = 'L', long)]
    pub dereference: bool,
    /// One JSON object per line instead of text.
    #[arg(long)]
    pub json: bool,
    #[command(flatten, next_help_heading = "Connecting")]
    pub access: Access,
}

#[derive(Debug, Args)]
pub struct Cat {
    /// What to print: cairn://BUCKET/KEY.
    #[arg(value_name = "URI", required = true, value_parser = remote())]
    pub paths: Vec<RemotePath>,
    #[command(flatten, next_help_heading = "Connecting")]
    pub access: Access,
}

#[derive(Debug, Args)]
pub struct Head {
    /// What to print the beginning of: cairn://BUCKET/KEY.
    #[arg(value_name = "URI", required = true, value_parser = remote())]
    pub paths: Vec<RemotePath>,
    /// How many lines.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    pub lines: u64,
    /// So many bytes instead: 100, 4K, 1M.
    #[arg(short = 'c', long, value_name = "SIZE", value_parser = size::parse, conflicts_with = "lines")]
    pub bytes: Option<u64>,
    #[command(flatten, next_help_heading = "Connecting")]
    pub access: Access,
}

#[derive(Debug, Args)]
pub struct MakeBucket {
    /// Their names.
    #[arg(value_name = "cairn://BUCKET", required = true, value_parser = bucket())]
    pub buckets: Vec<RemotePath>,
    /// A bucket that exists already is fine.
    #[arg(short = 'p', long)]
    pub ignore_existing: bool,
    #[command(flatten, next_help_heading = "Connecting")]
    pub access: Access,
}

#[derive(Debug, Args)]
pub struct RemoveBucket {
    /// Their names.
    #[arg(value_name = "cairn://BUCKET", required = true, value_parser = bucket())]
    pub buckets: Vec<RemotePath>,
    /// With everything in it. Tells what that is, and asks; --yes is needed where nobody can answer.
    #[arg(long)]
    pub force: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    #[command(flatten, next_help_heading = "Connecting")]
    pub access: Access,
}

#[derive(Debug, Args)]
pub struct Remove {
    /// What to remove: cairn://BUCKET/KEY.
    #[arg(value_name = "URI", required = true, value_parser = remote())]
    pub paths: Vec<RemotePath>,
    /// Directories with everything in them. Tells how much that is, and asks; --yes is needed where nobody can answer.
    #[arg(short, long)]
    pub recursive: bool,
    #[command(flatten)]
    pub filter: FilterArguments,
    /// Tell what would be removed, and remove nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// Print nothing but errors.
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten, next_help_heading = "Connecting")]
    pub access: Access,
}

#[derive(Debug, Args)]
pub struct Touch {
    /// Files: cairn://BUCKET/KEY.
    #[arg(value_name = "URI", required = true, value_parser = remote())]
    pub paths: Vec<RemotePath>,
    /// Make no file that is not there.
    #[arg(short = 'c', long)]
    pub no_create: bool,
    #[command(flatten, next_help_heading = "Connecting")]
    pub access: Access,
}

#[derive(Debug, Args)]
pub struct Link {
    /// With -s whatever the symlink shall say, for example ../other/file; without, the URI of a file that gets a further name.
    #[arg(value_name = "TARGET")]
    pub target: OsString,
    /// The new name.
    #[arg(value_name = "URI", value_parser = remote())]
    pub path: RemotePath,
    /// A symlink instead of a hard link.
    #[arg(short, long)]
    pub symbolic: bool,
    /// Replace a file of that name.
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten, next_help_heading = "Connecting")]
    pub access: Access,
}

impl Link {
    pub fn target_bytes(&self) -> Vec<u8> {
        self.target.clone().into_vec()
    }
}

#[derive(Debug, Args)]
pub struct DiskUsage {
    /// What to add up: cairn://BUCKET or cairn://BUCKET/KEY.
    #[arg(value_name = "URI", required = true, value_parser = remote())]
    pub paths: Vec<RemotePath>,
    /// Also each directory down to this depth.
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    pub depth: usize,
    #[command(flatten)]
    pub printing: Printing,
    #[command(flatten, next_help_heading = "Connecting")]
    pub access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FindKind {
    /// Files
    F,
    /// Directories
    D,
    /// Symlinks
    L,
}

#[derive(Debug, Args)]
pub struct Find {
    /// Where to begin.
    #[arg(value_name = "URI", value_parser = remote())]
    pub path: RemotePath,
    /// Whose last name matches: '*.txt'. * ? and [a-z] have their usual meaning.
    #[arg(long, value_name = "GLOB")]
    pub name: Option<OsString>,
    /// Whose path below URI matches; * matches slashes, too.
    #[arg(long, value_name = "GLOB")]
    pub path_glob: Option<OsString>,
    /// Of this kind alone.
    #[arg(long = "type", value_name = "KIND")]
    pub kind: Option<FindKind>,
    /// Files of at least this size: 4K, 10M.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub larger: Option<u64>,
    /// Files of at most this size.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub smaller: Option<u64>,
    /// Changed within this time: 90s, 30m, 24h, 7d.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub newer: Option<Duration>,
    /// Not changed for this time.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub older: Option<Duration>,
    /// Directories deep at most; 1 is what is in URI itself.
    #[arg(long, value_name = "N")]
    pub max_depth: Option<usize>,
    /// End each path with a zero byte, for xargs -0.
    #[arg(short = '0', long)]
    pub print0: bool,
    /// One JSON object per line instead of paths.
    #[arg(long, conflicts_with = "print0")]
    pub json: bool,
    #[command(flatten, next_help_heading = "Connecting")]
    pub access: Access,
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::arguments::duration_seconds(text).map(Duration::from_secs)
}

#[derive(Debug, Args)]
pub struct Tree {
    /// Where to begin [default: the buckets].
    #[arg(value_name = "URI", value_parser = remote())]
    pub path: Option<RemotePath>,
    /// How many levels.
    #[arg(short, long, value_name = "N")]
    pub depth: Option<usize>,
    /// Directories alone.
    #[arg(short = 'D', long)]
    pub directories: bool,
    /// With sizes.
    #[arg(short, long)]
    pub sizes: bool,
    /// Sizes for people.
    #[arg(short = 'H', long)]
    pub human: bool,
    #[command(flatten, next_help_heading = "Connecting")]
    pub access: Access,
}

/// `--include` and `--exclude`. Their order counts over both, which a derived parser can't know.
#[derive(Debug, Clone, Default)]
pub struct FilterArguments(pub Filter);

const RULES: [(&str, Verdict, &str); 2] = [
    (
        "include",
        Verdict::Include,
        "Take files whose path below the source matches; * matches slashes, too. The last --include or --exclude that matches a file wins",
    ),
    ("exclude", Verdict::Exclude, "Leave out files whose path below the source matches, for example '*.tmp' or 'cache/*'"),
];

impl Args for FilterArguments {
    fn augment_args(command: Command) -> Command {
        RULES.iter().fold(command, |command, (name, _, help)| {
            let rule = Arg::new(*name).long(*name).value_name("GLOB").action(ArgAction::Append).help(*help);
            command.arg(rule.value_parser(OsStringValueParser::new()))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for FilterArguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut rules: Vec<(usize, Verdict, Glob)> = Vec::new();
        for (name, verdict, _) in RULES {
            let (indices, globs) = (matches.indices_of(name), matches.get_many::<OsString>(name));
            let found = indices.into_iter().flatten().zip(globs.into_iter().flatten());
            rules.extend(found.map(|(index, glob)| (index, verdict, Glob::new(glob.as_encoded_bytes()))));
        }
        rules.sort_by_key(|(index, ..)| *index);
        Ok(Self(Filter::new(rules.into_iter().map(|(_, verdict, glob)| (verdict, glob)).collect())))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::FilterArguments;
    use clap::{Args, Command, FromArgMatches};

    fn takes(arguments: &[&str], path: &str) -> bool {
        let command = FilterArguments::augment_args(Command::new("test").no_binary_name(true));
        let matches = command.try_get_matches_from(arguments).expect("valid");
        FilterArguments::from_arg_matches(&matches).expect("valid").0.takes(path.as_bytes())
    }

    #[test]
    fn the_order_of_includes_and_excludes_counts() {
        let only_text = ["--exclude", "*", "--include", "*.txt"];
        assert!(takes(&only_text, "a/b.txt") && !takes(&only_text, "a/b"));
        assert!(!takes(&["--include", "*.txt", "--exclude", "*"], "a/b.txt"));
        assert!(takes(&["--exclude=a*", "--include=ab*", "--exclude=abc*"], "abx"));
        assert!(!takes(&["--exclude=a*", "--include=ab*", "--exclude=abc*"], "abcd"));
    }
}
