# Wrong tokens, addresses, directories and mount points; garbage on every port: a clear sentence in bounded time, and the cluster goes on.
source "$PROJECT/tests/e2e/lib.sh"
cluster_up
address=$(cat "$cluster/master/address") cs_address=$(cat "$cluster/run/chunkserver-1.ready")
token() { "$CAIRN" token create --data "$cluster/master" --role "$@"; }
mkdir "$WORK/empty"
join=("$CAIRN" mount --master "$address" --identity "$WORK/i1")
say "tokens"
refuses 10 "not a join token" "${join[@]}" --token nonsense "$WORK/empty"
refuses 10 "mistyped" "${join[@]}" --token "$(token client | tr 2-7 3-72)" "$WORK/empty"
refuses 10 "for a chunkserver, not for a client" "${join[@]}" --token "$(token chunkserver)" "$WORK/empty"
refuses 10 "for a client, not for a chunkserver" "$CAIRN" chunkserver --master "$address" --data "$WORK/c1" --token "$(token client)"
short=$(token client --ttl 1s); sleep 1.5
refuses 10 "expired" "${join[@]}" --token "$short" "$WORK/empty"
once=$(token client); "$CAIRN" status --master "$address" --identity "$WORK/i3" --token "$once" > /dev/null
refuses 10 "used" "${join[@]}" --token "$once" "$WORK/empty"
refuses 10 "has not joined" "${join[@]}" "$WORK/empty"
refuses 10 "possible values: chunkserver, client" "$CAIRN" token create --role king
refuses 10 "not the data directory of a master" "$CAIRN" token create --data /nowhere --role client
say "addresses: nobody there, somebody else there, no address at all"
refuses 10 "cannot reach the master at 127.0.0.1:9:" "$CAIRN" status --master 127.0.0.1:9 --identity "$WORK/i3"
refuses 10 "cannot reach the master at 127.0.0.1:9:" "$CAIRN" mount --master 127.0.0.1:9 --identity "$WORK/i3" "$WORK/empty"
python3 -c '
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1], flush=True)
while True: data, peer = s.recvfrom(2000); s.sendto(b"what? " + data[:100], peer)' > "$WORK/echo" & echo_server=$!
eventually 5 test -s "$WORK/echo"
refuses 10 "cannot reach the master" "$CAIRN" status --master "127.0.0.1:$(cat "$WORK/echo")" --identity "$WORK/i3"
kill $echo_server
refuses 10 "not a master of this cluster: it has another role" "$CAIRN" status --master "$cs_address" --identity "$WORK/i3"
refuses 10 "HOST:PORT" "$CAIRN" status --master "what is this" --identity "$WORK/i3"
refuses 10 "cannot be resolved" "$CAIRN" status --master nowhere.invalid:1 --identity "$WORK/i3"
"$CAIRN" status --master "localhost:${address##*:}" --identity "$WORK/i3" > /dev/null || fail "the name localhost does not work"
say "a mistyped address does not replace one that works"
"$CAIRN" status --master "$address" --identity "$WORK/i3" > /dev/null
refuses 10 "cannot reach the master" "$CAIRN" status --master 127.0.0.1:9 --identity "$WORK/i3"
"$CAIRN" status --identity "$WORK/i3" > /dev/null
say "another cluster"
"$CAIRN" master --data "$WORK/another" --listen 127.0.0.1:0 --ready-file "$WORK/another.ready" > /dev/null 2>&1 & another=$!
eventually 10 test -s "$WORK/another.ready"
refuses 10 "another cluster" "$CAIRN" status --master "$(cat "$WORK/another.ready")" --identity "$WORK/i3"
refuses 10 "another cluster" "$CAIRN" chunkserver --data "$WORK/c2" --master "$(cat "$WORK/another.ready")" --token "$(token chunkserver)"
refuses 10 "another cluster" "$CAIRN" status --master "$address" --identity "$WORK/i3" --token "$("$CAIRN" token create --data "$WORK/another" --role client)"
kill -TERM $another; wait $another
say "mount points"
mount_it=("$CAIRN" mount --identity "$WORK/i3")
for background in "" --background; do
  refuses 10 "does not exist" "${mount_it[@]}" $background "$WORK/nowhere"
  refuses 10 "not empty" "${mount_it[@]}" $background "$cluster"
  refuses 10 "already" "${mount_it[@]}" $background "$mount"
  refuses 10 "not a directory" "${mount_it[@]}" $background "$cluster/processes"
  refuses 10 '"shiny" is not known' "${mount_it[@]}" $background -o shiny "$WORK/empty"
  refuses 10 "cannot find nothing in CairnFS" "${mount_it[@]}" $background nothing "$WORK/empty"
done
refuses 10 "nothing is mounted" "$CAIRN" umount "$WORK/empty"
refuses 10 "no such directory" "$CAIRN" umount "$WORK/nowhere"
(cd "$mount" && refuses 10 "in use" "$CAIRN" umount "$mount"); mountpoint -q "$mount"
say "data directories and ports that are taken"
refuses 10 "in use" "$CAIRN" master --data "$cluster/master" --listen 127.0.0.1:0
refuses 10 "in use" "$CAIRN" master --data "$cluster/chunkserver-1" --listen 127.0.0.1:0
refuses 10 "in use" "$CAIRN" chunkserver --data "$cluster/chunkserver-1" --listen 127.0.0.1:0
refuses 10 "$address" "$CAIRN" master --data "$WORK/m2" --listen "$address"
refuses 10 "$address" "$CAIRN" chunkserver --data "$WORK/c3" --listen "$address" --master "$address" --token "$(token chunkserver)"
mkdir "$WORK/ro"; mount -t tmpfs -o ro cairn-test "$WORK/ro"
refuses 10 "$WORK/ro" "$CAIRN" master --data "$WORK/ro" --listen 127.0.0.1:0
refuses 10 "$WORK/ro" "$CAIRN" chunkserver --data "$WORK/ro" --master "$address" --token "$(token chunkserver)"
umount "$WORK/ro"
say "garbage on every port, and data that is cut off"
ports=$(ss -Hlunp | grep '"cairn"' | awk '{print $4}' | sed 's/.*://' | sort -u)
[ "$(echo "$ports" | wc -l)" -ge 7 ] || fail "only these ports: $ports"
python3 - $ports <<'EOF'
import random, socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
garbage = random.Random(1)
for port in map(int, sys.argv[1:]):
    for number in range(400):
        data = bytearray(garbage.randbytes(garbage.choice([0, 1, 20, 100, 1200, 1400, 9000, 60000])))
        if data and number % 2:
            # The first byte and version of a QUIC packet with a long header.
            data[:5] = bytes([0xC0 | garbage.randrange(64), 0, 0, 0, 1])[:len(data)]
        sender.sendto(data, ("127.0.0.1", port))
EOF
echo fine > "$mount/still"; [ "$(cat "$mount/still")" = fine ]
while read -r role pid _; do kill -0 "$pid" || fail "the $role died"; done < "$cluster/processes"
healthy || fail "not healthy any more"
say "the master is away"
victim=$(pid_of master); kill -9 "$victim"
refuses 10 "cannot reach the master" "$CAIRN" status --data "$cluster/master"
refuses 10 "cannot reach the master" "$CAIRN" token create --data "$cluster/master" --role client
refuses 15 "no master answers" "${mount_it[@]}" --background "$WORK/empty"
restart "$victim" > /dev/null; eventually 15 healthy; [ "$(cat "$mount/still")" = fine ]
