//! How many files and sockets the process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Once;

/// Raises the soft limit, 1,024 as a rule, to what the hard limit allows. A chunkserver keeps hundreds of segments of each disk open;
/// the soft limit is low only for programs that use select(2).
pub fn raise_limit() {
    static RAISED: Once = Once::new();
    RAISED.call_once(|| {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        if current == maximum {
            return;
        }
        if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            tracing::warn!(?current, ?maximum, %error, "cannot raise the limit of open files (ulimit -n)");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::raise_limit;
    use rustix::process::{Resource, getrlimit};

    #[test]
    fn everything_the_hard_limit_allows_may_be_open() {
        raise_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
