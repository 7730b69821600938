# Sourced by every end-to-end test. $WORK is a fresh directory, $CAIRN the binary, $PROJECT the tree, $FULL not empty when
# sizes are to be those of the promises rather than those that a short run has time for.
set -euo pipefail
# Says where a test ended, which `set -e` alone does not.
trap 'echo "ended at ${BASH_SOURCE[0]##*/}:$LINENO: $BASH_COMMAND" >&2' ERR
cluster=$WORK/cluster
mount=$WORK/mount

say() { printf -- '-- %s\n' "$*"; }
fail() { printf 'FAIL: %s\n' "$*" >&2; exit 1; }

cluster_up() { "$PROJECT/scripts/dev-cluster" up --data "$cluster" --mount "$mount" "$@"; }
cluster_down() { "$PROJECT/scripts/dev-cluster" down --data "$cluster"; }
restart() { "$PROJECT/scripts/dev-cluster" restart --data "$cluster" "$1"; }
status() { "$CAIRN" status --data "$cluster/master" "$@"; }

healthy() { status --json | grep -q '"healthy": true'; }

# The pid of the N-th process of a role.
pid_of() { awk -v role="$1" -v n="${2:-1}" '$1 == role && ++count == n {print $2}' "$cluster/processes"; }

# Whether a process is gone; one that nobody has waited for counts, too.
stopped() { ! kill -0 "$1" 2>/dev/null || grep -q '^State:.*Z' "/proc/$1/status"; }

remount() { restart "$(pid_of mount "${1:-1}")" >/dev/null; }

# A file of random bytes that the same seed makes again.
random_file() { # FILE BYTES SEED
  # openssl ends by SIGPIPE when head has enough.
  { openssl enc -aes-128-ctr -nosalt -pass "pass:$3" -pbkdf2 < /dev/zero 2>/dev/null || true; } | head -c "$2" > "$1"
}

same() { cmp "$1" "$2" || fail "$1 and $2 differ"; }

# Runs a command that must fail, within SECONDS, with a sentence that contains TEXT.
refuses() { # SECONDS TEXT COMMAND...
  local limit=$1 text=$2 output code=0; shift 2
  output=$(timeout --kill-after=2 "$limit" "$@" 2>&1) || code=$?
  said=$output
  [ "$code" -ne 0 ] || fail "should have failed: $*"
  [ "$code" -ne 124 ] && [ "$code" -ne 137 ] || fail "took longer than $limit s: $*"
  case "$output" in *"$text"*) ;; *) fail "said \"$output\" instead of something with \"$text\": $*" ;; esac
}

eventually() { # SECONDS COMMAND...
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || fail "not within the time: $*"
    sleep 0.2
  done
}
