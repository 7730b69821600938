# Mostly waits: for the end of a session whose mount has died.
# flock and fcntl between two mounts: who gets what, who waits, and what ends it; through a restart of the master and the death of a mount.
source "$PROJECT/tests/e2e/lib.sh"
second=$WORK/second
cluster_up --mount "$second"
python3 -B "$PROJECT/tests/e2e/locks.py" "$mount" "$second"

say "a lock outlives the master"
hold() { flock "$1" sh -c "touch $WORK/held; exec sleep 300" & holder=$!; eventually 5 test -e "$WORK/held"; rm "$WORK/held"; }
free() { flock -n "$1" true; }
touch "$mount/kept"
hold "$mount/kept"
master=$(pid_of master); kill -9 "$master"; sleep 0.5; restart "$master" > /dev/null
! free "$second/kept" || fail "a lock was lost with the master"
pkill -P "$holder"; wait "$holder" || true
eventually 5 free "$second/kept"

say "the locks of a mount that dies go with its session"
hold "$second/kept"
! free "$mount/kept" || fail "it was not taken"
kill -9 "$(pid_of mount 2)"
eventually 15 free "$mount/kept"
pkill -P "$holder"; wait "$holder" 2>/dev/null || true
