# The master's disk is full: it says so, stops instead of carrying on, and recovers when there is room; nothing acknowledged is lost.
source "$PROJECT/tests/e2e/lib.sh"
mkdir -p "$cluster/master"; mount -t tmpfs -o size=160m cairn-test "$cluster/master"
cluster_up
echo kept > "$mount/kept"; sync "$mount/kept"
head -c 200M /dev/zero > "$cluster/master/ballast" 2> /dev/null || true
say "write until it stops"
value=$(openssl rand -hex 30000); acknowledged=$WORK/acknowledged; echo 0 > "$acknowledged"
(n=0; while [ ! -e "$WORK/stop" ]; do n=$((n + 1)); touch "$mount/file-$n"; setfattr -n user.value -v "$value" "$mount/file-$n"; echo $n > "$acknowledged"; done) &
writer=$!
victim=$(pid_of master); eventually 60 stopped "$victim"
grep -q 'No space left on device' "$cluster/run/master.log" || fail "it did not say why it stopped"
kill -0 $writer || fail "an operation failed instead of waiting"
refuses 10 "cannot reach the master" "$CAIRN" status --data "$cluster/master"
say "it does not start without room"
refuses 10 "No space left" "$CAIRN" master --data "$cluster/master" --listen "$(cat "$cluster/master/address")"
say "with room all goes on"
rm "$cluster/master/ballast"; restart "$victim" > /dev/null
before=$(cat "$acknowledged"); more() { [ "$(cat "$acknowledged")" -gt "$before" ]; }; eventually 30 more
touch "$WORK/stop"; wait $writer || fail "an operation failed"
remount; count=$(cat "$acknowledged"); say "$count files were acknowledged"
[ "$(ls "$mount" | wc -l)" = $((count + 1)) ]; [ "$(cat "$mount/kept")" = kept ]
for n in $(seq "$count"); do [ "$(getfattr --only-values -n user.value "$mount/file-$n")" = "$value" ] || fail "file-$n has lost its attribute"; done
