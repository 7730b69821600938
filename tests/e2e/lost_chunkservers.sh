# Files are being written while two of six chunkservers are killed; then a third; then they come back.
source "$PROJECT/tests/e2e/lib.sh"
cluster_up
bytes=${BYTES:-40000000} files=12
say "before"; random_file "$WORK/before" "$bytes" before; cp "$WORK/before" "$mount/before"; sync -f "$mount"
say "writing while two are killed"
for n in $(seq $files); do random_file "$WORK/during-$n" $((bytes / 8 + n * 4099)) "$n"; done
(for n in $(seq $files); do cp "$WORK/during-$n" "$mount/during-$n"; for s in 1 2 3 4 5; do echo "$n $s" > "$mount/small-$n-$s"; done; sync "$mount/during-$n"; done) &
writer=$!
sleep 0.3; victims=("$(pid_of chunkserver 2)" "$(pid_of chunkserver 5)" "$(pid_of chunkserver 3)")
kill -9 "${victims[0]}"; sleep 0.5; kill -9 "${victims[1]}"
wait $writer || fail "writing did not go on"
check() {
  same "$WORK/before" "$mount/before"
  for n in $(seq $files); do same "$WORK/during-$n" "$mount/during-$n"; for s in 1 2 3 4 5; do [ "$(cat "$mount/small-$n-$s")" = "$n $s" ] || fail "small-$n-$s"; done; done
}
say "two are gone: every byte is there"
remount; check
say "three are gone: what needs them gives EIO soon, the rest works"
kill -9 "${victims[2]}"; remount
started=$SECONDS
! cat "$mount/before" > /dev/null 2> "$WORK/error" || fail "read with three of six shards gone"
[ $((SECONDS - started)) -le 10 ] || fail "EIO took $((SECONDS - started)) s"
grep -q 'Input/output error' "$WORK/error" || fail "$(cat "$WORK/error")"
ls -l "$mount" > /dev/null
touch "$mount/new" && rm "$mount/new"
say "they are back: all is readable"
for victim in "${victims[@]}"; do restart "$victim" > /dev/null; done
eventually 15 sh -c "'$CAIRN' status --json --data '$cluster/master' | grep -q '\"healthy\": true'"
remount; check
