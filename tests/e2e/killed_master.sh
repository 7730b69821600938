# The master is killed again and again under a workload; the mount goes on by itself and nothing acknowledged is lost.
source "$PROJECT/tests/e2e/lib.sh"
cluster_up
rounds=${ROUNDS:-8}
journal=$WORK/journal; : > "$journal"
worker() { # writes, fsyncs, renames; the journal names what was acknowledged
  local n=0 name
  while [ ! -e "$WORK/stop" ]; do
    n=$((n + 1)); name=$1-$n
    echo "content of $name" > "$mount/$name.tmp"
    sync "$mount/$name.tmp"
    mv "$mount/$name.tmp" "$mount/$name"
    sync "$mount"
    echo "$name" >> "$journal"
  done
}
worker a & first=$!; worker b & second=$!
for round in $(seq "$rounds"); do
  sleep 0.7
  restart "$(pid_of master)" > /dev/null &
  kill -9 "$(pid_of master)"; wait $!
done
sleep 1; touch "$WORK/stop"
wait $first; wait $second
count=$(wc -l < "$journal"); say "$count files were acknowledged over $rounds restarts"
[ "$count" -gt "$rounds" ] || fail "hardly anything happened"
remount
while read -r name; do [ "$(cat "$mount/$name")" = "content of $name" ] || fail "$name is lost"; [ ! -e "$mount/$name.tmp" ] || fail "$name has two names"; done < "$journal"
