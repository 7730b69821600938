# What is deleted leaves the disks after the grace period, to within 1 %, and what is written twice is stored once. With --full for 2 GB.
# Mostly waits.
source "$PROJECT/tests/e2e/lib.sh"
export MASTER_OPTIONS="--deletion-grace 2m"
cluster_up
# Half a megabyte for each server is for the names of what was deleted, and for space that is written ahead: 1 % only where there is enough to delete.
mib=96 patience=1 spare=3
if [ -n "$FULL" ]; then mib=1024 patience=4 spare=0; fi

# What the segments take on the disks, in MiB.
used() { for server in "$cluster"/chunkserver-*; do du -s --block-size=1 "$server/segments"; done | awk '{sum += $1} END {print int(sum / 1048576)}'; }
# ... once nothing more is written or deleted.
settled() { local now= before=-1; until now=$(used); [ "$now" = "$before" ]; do before=$now; sleep 4; done; echo "$now"; }
written() { sync -f "$mount"; settled; }

say "what is there before: a file of $mib MiB, and 200 small ones"
random_file "$WORK/first" $((mib << 20)) space; cp "$WORK/first" "$mount/first"
mkdir "$mount/small"; for n in $(seq 200); do echo "small $n" > "$mount/small/$n"; done
before=$(written)
say "$before MiB used for $mib MiB at 4+2"

say "the same content again is stored once"
cp "$WORK/first" "$mount/again"
twice=$(written)
say "$twice MiB used"
[ "$twice" -le $((before * 101 / 100 + spare)) ] || fail "$twice MiB used after the second copy, $before before"
same "$WORK/first" "$mount/again"
rm "$mount/again"

say "twice as much is written, and deleted"
for n in 1 2; do random_file "$mount/other-$n" $((mib << 20)) "other $n"; done
mkdir "$mount/more"; for n in $(seq 500); do random_file "$mount/more/$n" $((n * 37)) "more $n"; done
full=$(written)
say "$full MiB used"
[ "$full" -ge $((before * 5 / 2)) ] || fail "$full MiB used: where is the content?"
rm -r "$mount"/other-* "$mount/more"
started=$SECONDS
until [ "$(used)" -le $((before * 101 / 100 + spare)) ]; do
  [ $((SECONDS - started)) -lt $((240 * patience)) ] || fail "$(used) MiB used, $before before: $(du -s "$cluster"/chunkserver-*/segments | tr '\n' ' ')"
  sleep 1
done
say "$(used) MiB used after $((SECONDS - started)) s, $before before"
remount
same "$WORK/first" "$mount/first"
for n in $(seq 200); do [ "$(cat "$mount/small/$n")" = "small $n" ] || fail "small/$n"; done
