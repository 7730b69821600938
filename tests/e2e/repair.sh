# Eight servers at 4+2: 200 flipped bits are found by the scrub and rebuilt; one loses its directory and dies, and the others are whole without it; one is drained; two new ones fill up.
# Nobody does anything for it. With --full for 5 GB.
source "$PROJECT/tests/e2e/lib.sh"
export MASTER_OPTIONS="--dead-after 10s" CHUNKSERVER_OPTIONS="--scrub-rate 40"
cluster_up --chunkservers 8
bytes=50000000 files=8 patience=1
if [ -n "$FULL" ]; then bytes=625000000 patience=5; fi

field() { status --json | jq -r "$1"; }
whole() { [ "$(field '.healthy and .repair.slots_left == 0 and .repair.shards_left == 0')" = true ]; }
# How many slots the chunkserver with this label holds or may still be needed for.
state_of() { "$CAIRN" chunkserver list --data "$cluster/master" | awk -v label="host=$1" '$0 ~ label "$" {print}'; }
id_of() { state_of "$1" | awk '{print $1}'; }
check() { remount; for n in $(seq $files); do same "$WORK/file-$n" "$mount/file-$n"; done; for n in $(seq 200); do [ "$(cat "$mount/small/$n")" = "small $n" ] || fail "small/$n"; done; }

say "fill"
mkdir "$mount/small"; for n in $(seq 200); do echo "small $n" > "$mount/small/$n"; done
for n in $(seq $files); do random_file "$WORK/file-$n" $((bytes + n * 4099)) "repair $n"; cp "$WORK/file-$n" "$mount/file-$n"; done
sync -f "$mount"
whole || fail "$(status)"

# Waits until each disk has been read once from beginning to end: a pass that has begun before does not count.
scrubbed() {
  local directory end=$((SECONDS + 180 * patience))
  for directory in "$@"; do passes["$directory"]=$(jq .passes "$directory/scrub.json" 2>/dev/null || echo 0); done
  for directory in "$@"; do
    until [ "$(jq .passes "$directory/scrub.json" 2>/dev/null || echo 0)" -ge $((passes["$directory"] + 2)) ]; do
      [ $SECONDS -lt $end ] || fail "$directory has not been scrubbed"
      sleep 0.5
    done
  done
}
declare -A passes

say "200 flipped bits are found and rebuilt"
python3 "$PROJECT/tests/e2e/flip.py" 200 2 7 "$cluster"/chunkserver-*
scrubbed "$cluster"/chunkserver-*
eventually $((60 * patience)) whole
status | grep scrub
[ "$(field '"\(.scrub.corrupt_found) \(.scrub.damaged_repaired)"')" = "200 200" ] || fail "not just those were found and rebuilt"
check
scrubbed "$cluster"/chunkserver-*
[ "$(field .scrub.corrupt_found)" = 200 ] || fail "more was found later: $(status)"

say "a server loses its directory and dies"
victim=$(pid_of chunkserver 3); kill -9 "$victim"; rm -rf "$cluster/chunkserver-3"
started=$SECONDS
eventually 5 sh -c "! '$CAIRN' status --data '$cluster/master' --json | jq -e .healthy"
status | head -n 3
eventually $((70 * patience)) whole
say "whole with seven after $((SECONDS - started)) s"
check

say "the same again"
victim=$(pid_of chunkserver 5); kill -9 "$victim"; rm -rf "$cluster/chunkserver-5"
started=$SECONDS
sleep 5
eventually $((70 * patience)) whole
say "whole with six after $((SECONDS - started)) s"
check

say "two new servers fill up, and one of the old is drained"
for _ in 1 2; do "$PROJECT/scripts/dev-cluster" add --data "$cluster" > /dev/null; done
sleep 2; eventually $((90 * patience)) whole
for label in c9 c10; do [ "$(state_of $label | awk '{print $4}')" -gt 100 ] || fail "$label holds little: $(status)"; done
leaving=$(id_of c1)
refuses 10 "drain it first" "$CAIRN" chunkserver remove "$leaving" --data "$cluster/master"
"$CAIRN" chunkserver drain "$leaving" --data "$cluster/master"
eventually $((90 * patience)) sh -c "'$CAIRN' chunkserver list --data '$cluster/master' | grep 'host=c1$' | grep -q ' drained '"
"$CAIRN" chunkserver remove "$leaving" --data "$cluster/master"
kill -9 "$(pid_of chunkserver 1)"
eventually $((60 * patience)) whole
check

say "no more than six hosts for six shards: a drain has to be insisted on"
leaving=$(id_of c2)
"$CAIRN" chunkserver drain "$leaving" --data "$cluster/master"
eventually $((90 * patience)) sh -c "'$CAIRN' chunkserver list --data '$cluster/master' | grep 'host=c2$' | grep -q ' drained '"
refuses 10 "Insist with --yes" "$CAIRN" chunkserver drain "$(id_of c4)" --data "$cluster/master"
"$CAIRN" chunkserver undrain "$leaving" --data "$cluster/master"
eventually $((90 * patience)) whole
