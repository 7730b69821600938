# Random 4 KiB overwrites: the number of extents stays far below what it would come to, a reader never sees an error, and in the end the disks hold
# little more than the file. With --full for an hour on 1 GB.
# Mostly waits, for what was replaced to be deleted.
source "$PROJECT/tests/e2e/lib.sh"
export MASTER_OPTIONS="--deletion-grace 2m"
cluster_up
mib=64 seconds=25
if [ -n "$FULL" ]; then mib=1024 seconds=${SECONDS_FULL:-3600}; fi
every=$((seconds / 12 > 60 ? 60 : seconds / 12))
file=$mount/file

field() { status --json | jq -r "$1"; }
extents_per_mib() { echo $(($(field .compaction.extents) / mib)); }
used_mib() { echo $(($(field '[.chunkservers[].used_bytes] | add') / 1048576)); }
memory_mib() { awk '{print $1, $2}' "$cluster/processes" | while read -r role pid; do echo "$role $(($(awk '$1 == "VmRSS:" {print $2}' "/proc/$pid/status") / 1024))"; done |
  awk '{if ($2 > most[$1]) most[$1] = $2} END {for (role in most) printf "%s %d MiB  ", role, most[role]}'; }

say "a file of $mib MiB"
random_file "$WORK/file" $((mib << 20)) compaction
cp "$WORK/file" "$file"; sync "$file"
# Servers measure what they hold every few seconds.
fresh=0; until now=$(used_mib); [ "$now" -ge "$mib" ] && [ "$now" = "$fresh" ]; do fresh=$now; sleep 4; done
say "fresh: $(extents_per_mib) extents per MiB, $fresh MiB on the disks"

say "$seconds s of random overwrites of 4 KiB, synced 32 at a time, and a reader"
fio --name=storm --filename="$file" --rw=randwrite --bs=4k --fsync=32 --time_based --runtime="$seconds" --size="${mib}M" --norandommap --randseed=7 \
  --ioengine=psync --output="$WORK/fio" < /dev/null &
storm=$!
( while kill -0 $storm 2>/dev/null; do cat "$file" > /dev/null || exit 1; sleep 1; done ) & reader=$!
most=0
while kill -0 $storm 2>/dev/null; do
  sleep "$every"; now=$(extents_per_mib); most=$((now > most ? now : most))
  say "after $SECONDS s: $now extents per MiB, $(used_mib) MiB used, $(field '"\(.compaction.windows_waiting) windows and \(.compaction.chunks_waiting) chunks wait, \(.compaction.bytes_rewritten / 1048576 | floor) MiB rewritten, \(.compaction.bytes_stale / 1048576 | floor) MiB too late"'); $(memory_mib)"
done
wait $storm; wait $reader || fail "a reader saw an error"
grep -E 'IOPS=|clat percentiles|99.00th' "$WORK/fio"
# A window of 4 MiB is rewritten when it has 512 extents; some are in their turn. Without compaction there would be about 240 per MiB.
[ "$most" -le 200 ] || fail "$most extents per MiB"
[ "$(field .compaction.bytes_rewritten)" -gt 0 ] || fail "nothing was rewritten: $(status)"
before=$(b3sum "$file"); before=${before%% *}

say "what is left is rewritten, and what was replaced is deleted"
status | grep -m1 compaction: || true
started=$SECONDS
eventually 200 sh -c "[ \$('$CAIRN' status --data '$cluster/master' --json | jq .compaction.windows_waiting) = 0 ]"
say "no window waits after $((SECONDS - started)) s: $(extents_per_mib) extents per MiB, $(used_mib) MiB used"
[ "$(extents_per_mib)" -le 32 ] || fail "$(extents_per_mib) extents per MiB are left"
limit=$((fresh * 13 / 10 + 16))
eventually 260 sh -c "[ \$('$CAIRN' status --data '$cluster/master' --json | jq '[.chunkservers[].used_bytes] | add / 1048576 | floor') -le $limit ]"
say "after $((SECONDS - started)) s: $(used_mib) MiB used, $fresh when it was fresh"
remount
after=$(b3sum "$file"); after=${after%% *}
[ "$before" = "$after" ] || fail "the content has changed"
