# The edges: strange names, ten thousand open files, attributes at their limits, offsets at the end of all files, cycles, a mount as its own disk; each of them killed in
# the middle. Afterwards all counts are what they were before.
source "$PROJECT/tests/e2e/lib.sh"
second=$WORK/second
export MASTER_OPTIONS="--deletion-grace 2m"
cluster_up --mount "$second"
limits() { python3 -B "$PROJECT/tests/e2e/limits.py" "$@"; }
count() { status --json | jq "$1"; }
inodes() { count .inodes; }
locks() { count '[.sessions[].locks] | add'; }
open_files() { count '[.sessions[].open_inodes] | add'; }
before=$(inodes)

say "strange names"; limits names "$mount" "$second"
say "attributes at and over their limits"; limits attributes "$mount"
say "offsets at the end of all files"; limits offsets "$mount"
say "cycles"; limits cycles "$mount" "$second"
say "many open files"; limits open-files "$mount"

say "killed in the middle"
for what in names attributes offsets cycles open-files locks; do
  mkdir "$mount/$what"
  (ulimit -n 20000; exec python3 -B "$PROJECT/tests/e2e/limits.py" "$what" "$mount/$what" "$mount/$what" > /dev/null 2>&1) & victim=$!
  sleep 0.7
  kill -9 "$victim" 2>/dev/null || true
  wait "$victim" 2>/dev/null || true
  rm -rf "${mount:?}/$what" || fail "what $what left can't be removed"
done

say "a mount as its own disk"
address=$(cat "$cluster/master/address")
refuses 10 "cannot keep its own data" "$CAIRN" chunkserver --master "$address" --data "$mount/data" --token "$("$CAIRN" token create --data "$cluster/master" --role chunkserver)"
refuses 10 "cannot keep its own data" "$CAIRN" master --data "$mount/master" --listen 127.0.0.1:0
mkdir "$mount/inside"
"$CAIRN" mount --master "$address" -o allow_other --identity "$cluster/client-1" "$mount/inside" & nested=$!
eventually 10 mountpoint -q "$mount/inside"
echo through > "$mount/inside/f"; [ "$(cat "$mount/f")" = through ] || fail "a mount inside the mount shows something else"
[ "$(stat -c %d "$mount/inside")" != "$(stat -c %d "$mount")" ]
! mv "$mount/f" "$mount/inside/g" 2>/dev/null || [ -e "$mount/g" ] || fail "a move between two mounts lost the file"
umount "$mount/inside"; wait "$nested"
rm -f "$mount/f" "$mount/g"; rmdir "$mount/inside"

say "nothing is left"
[ -z "$(ls -A "$mount")" ] || fail "still there: $(ls -A "$mount")"
counts_are_back() { [ "$(inodes)" = "$before" ] && [ "$(locks)" = 0 ] && [ "$(open_files)" = 0 ]; }
eventually 40 counts_are_back
[ "$(count '.sessions | length')" = 2 ] || [ "$(count '.sessions | length')" = 3 ] || fail "sessions: $(count '.sessions')"
if [ -n "$FULL" ]; then
  no_chunks() { [ "$(count .chunks)" = 0 ]; }
  eventually 400 no_chunks
fi
