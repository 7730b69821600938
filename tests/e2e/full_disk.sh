# The chunkservers' disks are full: ENOSPC within seconds, and deleting works. FULL: after the grace period writing works again.
source "$PROJECT/tests/e2e/lib.sh"
for n in 1 2 3 4 5 6; do mkdir -p "$cluster/chunkserver-$n"; mount -t tmpfs -o size=40m cairn-test "$cluster/chunkserver-$n"; done
cluster_up
random_file "$WORK/kept" 5000000 kept; cp "$WORK/kept" "$mount/kept"; sync "$mount/kept"
# Prints what went wrong; must take no longer than 10 s.
copy() { # SOURCE TARGET
  local started=$SECONDS code=0
  dd if="$1" of="$2" bs=1M conv=fsync status=none 2>&1 || code=$?
  [ $((SECONDS - started)) -le 10 ] || fail "writing took $((SECONDS - started)) s"
  return $code
}
say "fill"
# Each is different: equal content is stored once.
for n in 1 2 3 4 5; do
  random_file "$WORK/large-$n" 60000000 "$n"
  copy "$WORK/large-$n" "$mount/large-$n" > "$WORK/error" || break
done
grep -q 'No space left' "$WORK/error" || fail "said \"$(cat "$WORK/error")\" when it was full"
random_file "$WORK/more" 60000000 more; copy "$WORK/more" "$mount/more" > "$WORK/error" && fail "there was room for more"
grep -q 'No space left' "$WORK/error" || fail "said \"$(cat "$WORK/error")\" when it was full"
say "the command line says it in a sentence, and leaves nothing behind"
export CAIRN_IDENTITY=$cluster/client-1
"$CAIRN" mb cairn://b
refuses 60 "cairn://b/more: no space is left in the cluster" "$CAIRN" cp "$WORK/more" cairn://b/more
[ -z "$(ls -A "$mount/b")" ] || fail "left behind: $(ls -A "$mount/b")"
rmdir "$mount/b"
say "the rest goes on"
[ "$(df --output=pcent "$mount" | tail -n 1 | tr -d ' %')" -ge 95 ]
same "$WORK/kept" "$mount/kept"; same "$WORK/large-1" "$mount/large-1"
mkdir "$mount/folder"; mv "$mount/kept" "$mount/folder/kept"; status > /dev/null; eventually 5 healthy
rm "$mount"/large-* "$mount/more"; [ "$(ls "$mount")" = folder ]
remount; same "$WORK/kept" "$mount/folder/kept"
say "while they are full, servers restart"
restart "$(pid_of chunkserver 1)" > /dev/null; restart "$(pid_of chunkserver 2)" > /dev/null; eventually 10 healthy
same "$WORK/kept" "$mount/folder/kept"
[ -n "${FULL:-}" ] || exit 0
say "after the grace period there is room"
written() { copy "$WORK/more" "$mount/again"; }
eventually 1200 written
remount; same "$WORK/more" "$mount/again"
