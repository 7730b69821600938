//! Copying: files and trees, from this machine into CairnFS, back, and within it.
//!
//! A [`Plan`] goes over two trees side by side, a directory at a time, and says step by step what is to be done; the [`Engine`] does it, much at
//! once. What the two promise:
//!
//! - A name shows the whole new content or what was there before: content gets its name when it is complete and verified.
//! - Verified: what the master says that a file is made of hashes to what was read from the source; what a local file gives back is what the
//!   verified chunks held.
//! - Long files go to a temporary name that says of which source they are (`part`). Whoever copies the same again finds it, and takes of it
//!   what hashes to what it should be; nothing is believed because a name or a time says so.
//! - Small files share chunks and commits (`batch`).
//! - When a transfer ends, what it wrote is on stable storage in the cluster.

mod across;
mod batch;
mod compare;
mod content_map;
mod download;
mod engine;
mod pace;
mod part;
mod plan;
mod preserve;
mod publish;
mod removal;
mod route;
mod spot;
mod stop;
mod traits;
mod upload;
mod watch;

pub use engine::{Engine, Options};
pub use pace::Pace;
pub use part::is_part;
pub use plan::{Comparison, Plan, Rules, Step};
pub use route::{Route, Routing, route};
pub use spot::{Spot, Tree};
pub use stop::Stop;
pub use traits::{Entry, Traits};
pub use watch::{Counts, Deed, Sums, Ticket, Watch};

/// Files up to this length are read whole and packed together.
const SMALL_BYTES_MAX: u64 = 1 << 20;
