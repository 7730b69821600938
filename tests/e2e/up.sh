# `cairn up`: the state is found again, Ctrl-C unmounts (also a busy mount), kill -9 costs nothing, wrong combinations are told.
source "$PROJECT/tests/e2e/lib.sh"
export HOME=$WORK/home XDG_DATA_HOME= XDG_CONFIG_HOME=; mkdir "$HOME"
up() { : > "$WORK/up.log"; "$CAIRN" up "$@" > "$WORK/up.log" 2>&1 & up=$!; eventually 20 grep -q '^stop: ' "$WORK/up.log"; }
ends() { eventually 20 stopped "$up"; wait "$up" || fail "up ended with an error: $(cat "$WORK/up.log")"; ! mountpoint -q "$mount" || fail "still mounted"; }
say "up, and again"
up --mount "$mount"; cp -r "$PROJECT/docs" "$mount/docs"; echo one > "$mount/one"
[ "$(wc -l < "$WORK/up.log")" -le 6 ] || fail "it talks too much: $(cat "$WORK/up.log")"
kill -INT "$up"; ends
up --mount "$mount"; [ "$(cat "$mount/one")" = one ]; diff -r "$PROJECT/docs" "$mount/docs"
say "commands without any flags mean this cluster"
"$CAIRN" status | grep -q '^healthy'; "$CAIRN" status --json | grep -q '"healthy": true'
"$CAIRN" token create --role client | grep -q '^cairn-client-'
mkdir "$WORK/other"; "$CAIRN" mount --background "$WORK/other"; [ "$(cat "$WORK/other/one")" = one ]; "$CAIRN" umount "$WORK/other"
say "metrics of every role"
kill -INT "$up"; ends
port=$((RANDOM % 10000 + 40000)); up --mount "$mount" --metrics "$port"
grep -q "^metrics: http://127.0.0.1:$port/metrics is the master, ports $((port + 1)) to $((port + 6)) the chunkservers, $((port + 7)) the mount" "$WORK/up.log" || fail "$(cat "$WORK/up.log")"
names=(cairn_master cairn_chunkserver cairn_chunkserver cairn_chunkserver cairn_chunkserver cairn_chunkserver cairn_chunkserver cairn_client)
for number in 0 1 2 3 4 5 6 7; do
  # As a whole: a reader that leaves early would look like an error.
  page=$(curl -sS --fail --max-time 5 "http://127.0.0.1:$((port + number))/metrics")
  grep -q "^${names[$number]}_" <<< "$page" || fail "port $number has no ${names[$number]}"
done
refuses 20 "not enough ports" "$CAIRN" up --data "$WORK/d5" --chunkservers 6 --metrics 65533
kill -INT "$up"; ends; up --mount "$mount"
say "a second one on the same state"
refuses 20 "in use" "$CAIRN" up --mount "$WORK/other"
say "Ctrl-C with a busy mount"
exec 8< "$mount/one"; echo two > "$mount/two"; kill -INT "$up"; ends; exec 8<&-
say "kill -9, and again on the same mount point"
up --mount "$mount"; [ "$(cat "$mount/two")" = two ]; echo three > "$mount/three"; sync "$mount/three"
kill -9 "$up"; wait "$up" 2> /dev/null || true
up --mount "$mount"; [ "$(cat "$mount/three")" = three ]; kill -TERM "$up"; ends
say "a mount point that can't be"
touch "$WORK/file"; refuses 20 "not a directory" "$CAIRN" up --mount "$WORK/file"
mkdir "$WORK/full"; touch "$WORK/full/x"; refuses 20 "not empty" "$CAIRN" up --mount "$WORK/full"
say "schemes and numbers"
refuses 20 "4+2" "$CAIRN" up --scheme 2+1
refuses 20 "fixed" "$CAIRN" up --scheme 2+1
refuses 20 "single chunkserver" "$CAIRN" up --data "$WORK/d0" --chunkservers 1
refuses 5 "not a scheme" "$CAIRN" up --data "$WORK/d5" --scheme 17+4
refuses 5 "0 is not in" "$CAIRN" up --data "$WORK/d5" --chunkservers 0
random_file "$WORK/random" 9000000 up
use() { cp "$WORK/random" "$mount/random"; sync "$mount/random"; same "$WORK/random" "$mount/random"; kill -INT "$up"; ends; }
up --data "$WORK/d2" --chunkservers 2 --mount "$mount"; grep -q '4+2 wants 6 chunkservers and there are 2' "$WORK/up.log"; use
up --data "$WORK/d3" --chunkservers 3 --scheme 2+1 --mount "$mount"; "$CAIRN" status --data "$WORK/d3/master" | grep -q '^healthy'; use
up --data "$WORK/d3" --mount "$mount"; "$CAIRN" status --data "$WORK/d3/master" | grep -q ' 2+1 '; same "$WORK/random" "$mount/random"; kill -INT "$up"; ends
up --data "$WORK/d10" --chunkservers 12 --scheme 8+4 --mount "$mount"; use
up --data "$WORK/d1" --chunkservers 1 --scheme 1+0 --mount "$mount"; use
say "the root directory is whose cluster it is"
cp "$CAIRN" "$WORK/cairn"; chmod 711 "$WORK"; mkdir -m 777 "$WORK/user"
as_user=(setpriv --reuid=65534 --regid=65534 --clear-groups)
: > "$WORK/up.log"
HOME=$WORK/user "${as_user[@]}" "$WORK/cairn" up --data "$WORK/user/state" > "$WORK/up.log" 2>&1 & up=$!
eventually 20 grep -q '^stop: ' "$WORK/up.log"
"$CAIRN" mount --background -o allow_other --identity "$WORK/user/state/master/operator" "$WORK/other"
"${as_user[@]}" touch "$WORK/other/mine"; "$CAIRN" umount "$WORK/other"; kill -INT "$up"; ends
say "relative paths, made on the way"
cd "$WORK"; up --data new/state --mount new/mount; echo x > new/mount/x; kill -INT "$up"; eventually 20 stopped "$up"; wait "$up"
