# Wrong tokens, addresses and mount points; garbage on every port: a clear sentence in bounded time, and the cluster goes on.
source "$PROJECT/tests/e2e/lib.sh"
cluster_up
address=$(cat "$cluster/master/address")
token=$("$CAIRN" token create --data "$cluster/master" --role client)
say "tokens"
refuses 10 "token" "$CAIRN" mount --master "$address" --identity "$WORK/i1" --token nonsense "$WORK"
refuses 10 "chunkserver" "$CAIRN" chunkserver --master "$address" --data "$WORK/c1" --token "$token"
short=$("$CAIRN" token create --data "$cluster/master" --role client --ttl 1s); sleep 1.5
mkdir "$WORK/empty"
refuses 10 "expired" "$CAIRN" mount --master "$address" --identity "$WORK/i2" --token "$short" "$WORK/empty"
"$CAIRN" status --master "$address" --identity "$WORK/i3" --token "$token" > /dev/null
refuses 10 "used" "$CAIRN" mount --master "$address" --identity "$WORK/i4" --token "$token" "$WORK/empty"
refuses 10 "has not joined" "$CAIRN" mount --master "$address" --identity "$WORK/i5" "$WORK/empty"
say "addresses"
refuses 15 "127.0.0.1:9" "$CAIRN" status --master 127.0.0.1:9 --identity "$WORK/i3"
say "mount points"
"$CAIRN" status --master "$address" --identity "$WORK/i3" > /dev/null
refuses 10 "does not exist" "$CAIRN" mount --identity "$WORK/i3" "$WORK/nowhere"
refuses 10 "not empty" "$CAIRN" mount --identity "$WORK/i3" "$cluster"
refuses 10 "already" "$CAIRN" mount --identity "$WORK/i3" "$mount"
refuses 10 "not a directory" "$CAIRN" mount --identity "$WORK/i3" "$cluster/processes"
refuses 10 "shiny" "$CAIRN" mount --identity "$WORK/i3" -o shiny "$WORK/empty"
refuses 10 "nothing is mounted" "$CAIRN" umount "$WORK/empty"
say "a second master, a second chunkserver on the same data"
refuses 10 "another master" "$CAIRN" master --data "$cluster/master" --listen 127.0.0.1:0
refuses 10 "chunkserver" "$CAIRN" chunkserver --data "$cluster/chunkserver-1" --listen 127.0.0.1:0
say "garbage on every port"
ports=$(ss -Hlunp | grep cairn | awk '{print $4}' | sed 's/.*://' | sort -u)
[ "$(echo "$ports" | wc -l)" -ge 7 ] || fail "only these ports: $ports"
for port in $ports; do for n in $(seq 50); do head -c $((RANDOM % 1400 + 1)) /dev/urandom > "/dev/udp/127.0.0.1/$port" || true; done; done
echo fine > "$mount/still"; [ "$(cat "$mount/still")" = fine ]
while read -r role pid _; do kill -0 "$pid" || fail "the $role died"; done < "$cluster/processes"
say "background mount, and unmount"
"$CAIRN" mount --identity "$WORK/i3" --background "$WORK/empty"
[ "$(cat "$WORK/empty/still")" = fine ]
"$CAIRN" umount "$WORK/empty"; eventually 5 sh -c "! mountpoint -q '$WORK/empty'"
