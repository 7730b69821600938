# Stored bytes are flipped, a segment and an index are deleted: every file still reads right, and it is logged.
source "$PROJECT/tests/e2e/lib.sh"
cluster_up
random_file "$WORK/big" 60000000 rot; cp "$WORK/big" "$mount/big"
mkdir "$mount/small"; for n in $(seq 100); do echo "file $n" > "$mount/small/$n"; done
sync -f "$mount"
check() { remount; same "$WORK/big" "$mount/big"; for n in $(seq 100); do [ "$(cat "$mount/small/$n")" = "file $n" ] || fail "small/$n"; done; }
say "flip bytes in the segments of two servers"
for server in 1 2; do
  for segment in "$cluster/chunkserver-$server"/segments/*; do
    size=$(stat -c %s "$segment")
    for at in $(seq 100000 700001 "$size"); do printf '\377\000\252' | dd of="$segment" bs=1 seek="$at" conv=notrunc status=none; done
  done
done
check
grep -hqi 'corrupt\|mismatch\|hash' "$cluster"/run/mount-1.log || fail "nothing is logged"
say "a segment is deleted"
victim=$(pid_of chunkserver 1); kill -9 "$victim"; find "$cluster/chunkserver-1/segments" -type f | head -n 1 | xargs rm
restart "$victim" > /dev/null; check
say "an index is deleted"
victim=$(pid_of chunkserver 3); kill -9 "$victim"; rm "$cluster/chunkserver-3"/index*
restart "$victim" > /dev/null; check
