//! Random sequences. Three names on three levels: each path has been something else before.
//!
//! Of paths that are drawn blindly, most lead nowhere. So most are aimed: they are replaced by one that suits the call, as far as the model knows after
//! the calls before. What shrinks is what was drawn, and the aim is taken anew.

use super::operation::{Data, Operation, Path, Range, Step};
use super::outcome::Kind;
use super::tree::Tree;
use cairn_common::wire::master::{RenameMode, XattrMode};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::{Index, select};
use proptest::strategy::Union;

const NAMES: [&str; 3] = ["a", "b", "c"];
/// The owner may do everything, so that it does not matter who runs this; nor does whether the process may keep set-ID bits.
const NEW_MODES: [u16; 4] = [0o755, 0o700, 0o711, 0o750];
const MODES: [u16; 7] = [0o755, 0o700, 0o711, 0o750, 0o777, 0o1755, 0o2740];
const XATTRS: [&str; 2] = ["user.one", "user.two"];
/// Around pages, blocks and what a client keeps together.
const EDGES: [u64; 8] = [4_095, 4_096, 4_097, 8_192, 65_536, 131_072, 131_073, 262_144];
const SIZE_MAX: u64 = 300_000;
const LEN_MAX: u64 = 150_000;
const XATTR_BYTES_MAX: usize = 64;

const DEPTH_MAX: usize = 3;
/// Of paths.
const AIMED: f64 = 0.75;

/// A step as it was drawn.
#[derive(Debug, Clone)]
struct Draft {
    step: Step,
    /// Which of the paths that suit is taken, for each path of the call.
    aims: [Option<Index>; 2],
}

/// Up to `len` steps through any of `doors`.
pub fn steps(len: usize, doors: usize) -> impl Strategy<Value = Vec<Step>> {
    let aim = || weighted(AIMED, any::<Index>());
    let draft = (0..doors, operation(), aim(), aim());
    let draft = draft.prop_map(|(door, operation, one, two)| Draft { step: Step { door, operation }, aims: [one, two] });
    vec(draft, 1..=len).prop_map(aimed)
}

fn aimed(drafts: Vec<Draft>) -> Vec<Step> {
    let mut tree = Tree::default();
    let mut steps = Vec::new();
    for Draft { mut step, aims } in drafts {
        for ((path, wanted), aim) in targets(&mut step.operation).into_iter().zip(aims) {
            if let Some(aim) = aim {
                wanted.aim(path, aim, &tree);
            }
        }
        tree.apply(&step.operation);
        steps.push(step);
    }
    steps
}

/// What suits a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Anything,
    Just(Kind),
    /// A name in a directory that exists.
    Name,
}

impl Wanted {
    fn aim(self, path: &mut Path, aim: Index, tree: &Tree) {
        let suitable: Vec<Path> = match self {
            Self::Anything => tree.paths(|_| true),
            Self::Just(wanted) => tree.paths(|kind| kind == wanted),
            Self::Name => {
                let name = path.names().next_back().unwrap_or(NAMES[0]).to_owned();
                let directories = tree.paths(|kind| kind == Kind::Directory).into_iter().filter(|path| path.names().count() < DEPTH_MAX);
                let below = directories.map(|directory| Path::below(Some(&directory), &name));
                std::iter::once(Path::below(None, &name)).chain(below).collect()
            }
        };
        if !suitable.is_empty() {
            *path = aim.get(&suitable).clone();
        }
    }
}

/// The paths of a call, and what suits it there.
fn targets(operation: &mut Operation) -> Vec<(&mut Path, Wanted)> {
    const FILE: Wanted = Wanted::Just(Kind::File);
    match operation {
        Operation::MakeDirectory { path, .. } | Operation::Create { path, .. } | Operation::Symlink { path, .. } => {
            vec![(path, Wanted::Name)]
        }
        Operation::RemoveDirectory { path } | Operation::List { path } => vec![(path, Wanted::Just(Kind::Directory))],
        Operation::Write { path, .. }
        | Operation::Append { path, .. }
        | Operation::Read { path, .. }
        | Operation::Truncate { path, .. }
        | Operation::Punch { path, .. }
        | Operation::Reserve { path, .. } => vec![(path, FILE)],
        Operation::Copy { from, to, .. } => vec![(from, FILE), (to, FILE)],
        Operation::Rename { from, to, .. } => vec![(from, Wanted::Anything), (to, Wanted::Name)],
        Operation::Link { from, to } => vec![(from, FILE), (to, Wanted::Name)],
        Operation::ReadLink { path } => vec![(path, Wanted::Just(Kind::Symlink))],
        Operation::Unlink { path }
        | Operation::ChangeMode { path, .. }
        | Operation::SetXattr { path, .. }
        | Operation::GetXattr { path, .. }
        | Operation::RemoveXattr { path, .. }
        | Operation::ListXattrs { path }
        | Operation::Status { path }
        | Operation::Sync { path } => vec![(path, Wanted::Anything)],
    }
}

fn path() -> impl Strategy<Value = Path> {
    let names = prop_oneof![5 => 1..=1_usize, 4 => 2..=2_usize, 2 => DEPTH_MAX..=DEPTH_MAX];
    names.prop_flat_map(|names| vec(select(&NAMES[..]), names)).prop_map(|names| Path(names.join("/")))
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..200_u64, 2 => select(&EDGES[..]), 1 => 0..SIZE_MAX]
}

fn len() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..200_u64, 2 => select(&EDGES[..6]), 1 => 0..LEN_MAX]
}

fn range() -> impl Strategy<Value = Range> {
    (offset(), len()).prop_map(|(offset, len)| Range { offset, len })
}

fn data() -> impl Strategy<Value = Data> {
    (any::<u8>(), len()).prop_map(|(seed, len)| Data { seed, len: len as usize })
}

fn value() -> impl Strategy<Value = Data> {
    (any::<u8>(), 0..=XATTR_BYTES_MAX).prop_map(|(seed, len)| Data { seed, len })
}

fn xattr() -> impl Strategy<Value = &'static str> {
    select(&XATTRS[..])
}

fn operation() -> impl Strategy<Value = Operation> {
    Union::new_weighted(vec![(28, names().boxed()), (22, contents().boxed()), (8, attributes().boxed()), (8, looks().boxed())])
}

fn names() -> impl Strategy<Value = Operation> {
    let new_mode = || select(&NEW_MODES[..]);
    prop_oneof![
        6 => (path(), new_mode()).prop_map(|(path, mode)| Operation::MakeDirectory { path, mode }),
        6 => (path(), new_mode(), any::<bool>()).prop_map(|(path, mode, exclusive)| Operation::Create { path, mode, exclusive }),
        2 => path().prop_map(|path| Operation::RemoveDirectory { path }),
        3 => path().prop_map(|path| Operation::Unlink { path }),
        6 => (path(), path(), rename_mode()).prop_map(|(from, to, mode)| Operation::Rename { from, to, mode }),
        3 => (path(), path()).prop_map(|(from, to)| Operation::Link { from, to }),
        2 => (path(), path()).prop_map(|(target, path)| Operation::Symlink { target, path }),
    ]
}

fn rename_mode() -> impl Strategy<Value = RenameMode> {
    prop_oneof![4 => Just(RenameMode::Replace), 1 => Just(RenameMode::NoReplace), 1 => Just(RenameMode::Exchange)]
}

fn contents() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => (path(), offset(), data()).prop_map(|(path, offset, data)| Operation::Write { path, offset, data }),
        4 => (path(), data()).prop_map(|(path, data)| Operation::Append { path, data }),
        4 => (path(), range()).prop_map(|(path, range)| Operation::Read { path, range }),
        3 => (path(), offset()).prop_map(|(path, size)| Operation::Truncate { path, size }),
        2 => (path(), range()).prop_map(|(path, range)| Operation::Punch { path, range }),
        1 => (path(), range()).prop_map(|(path, range)| Operation::Reserve { path, range }),
        2 => (path(), range(), path(), offset()).prop_map(|(from, range, to, offset)| Operation::Copy { from, range, to, offset }),
        1 => path().prop_map(|path| Operation::Sync { path }),
    ]
}

fn attributes() -> impl Strategy<Value = Operation> {
    let mode = prop_oneof![2 => Just(XattrMode::Set), 1 => Just(XattrMode::Create), 1 => Just(XattrMode::Replace)];
    prop_oneof![
        3 => (path(), select(&MODES[..])).prop_map(|(path, mode)| Operation::ChangeMode { path, mode }),
        3 => (path(), xattr(), value(), mode).prop_map(|(path, name, value, mode)| Operation::SetXattr { path, name, value, mode }),
        1 => (path(), xattr()).prop_map(|(path, name)| Operation::GetXattr { path, name }),
        1 => (path(), xattr()).prop_map(|(path, name)| Operation::RemoveXattr { path, name }),
        1 => path().prop_map(|path| Operation::ListXattrs { path }),
    ]
}

fn looks() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => path().prop_map(|path| Operation::Status { path }),
        2 => path().prop_map(|path| Operation::List { path }),
        1 => path().prop_map(|path| Operation::ReadLink { path }),
    ]
}
