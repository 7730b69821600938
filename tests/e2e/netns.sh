# A cluster of network namespaces: links are cut and mended, and nothing is left behind.
source "$PROJECT/tests/e2e/lib.sh"
ip netns add cairn-probe 2> /dev/null && ip netns delete cairn-probe || { say "no network namespaces here"; exit 77; }
links_before=$(ip -br link | wc -l)
cluster_up --netns --mount "$WORK/second"
link() { ip -br link | awk -F'@' '/^cv/ {print $1}' | grep -e "-$1$"; } # of the process with that host number
unplug() { ip link set "$(link "$1")" down; }
plug() { ip link set "$(link "$1")" up; }
random_file "$WORK/file" 30000000 netns; cp "$WORK/file" "$mount/file"; sync "$mount/file"
say "two chunkservers are cut off"
unplug 3; unplug 6; remount
same "$WORK/file" "$mount/file"; cp "$WORK/file" "$mount/during"; sync "$mount/during"; same "$WORK/file" "$WORK/second/during"
eventually 10 sh -c "'$CAIRN' status --data '$cluster/master' --json | grep -q '\"state\": \"suspect\"'"
plug 3; plug 6; eventually 20 healthy; same "$WORK/file" "$mount/during"
say "a mount is cut off: it waits, the other goes on"
unplug 101
(cat "$mount/file" > /dev/null; touch "$mount/waited") & waiting=$!
sleep 3; echo other > "$WORK/second/other"; [ ! -e "$WORK/second/waited" ]
plug 101; eventually 30 test -e "$WORK/second/waited"; wait $waiting
[ "$(cat "$mount/other")" = other ]
say "the master is cut off"
unplug 1; (echo late > "$mount/late") & waiting=$!; sleep 2; plug 1; wait $waiting; eventually 10 grep -q late "$WORK/second/late"
say "down, and nothing is left"
cluster_down
[ -z "$(ip netns list | grep "cairn-$(printf %s "$cluster" | cksum | awk '{printf "%04x", $1 % 65536}')-")" ] || fail "namespaces are left"
[ "$(ip -br link | wc -l)" = "$links_before" ] || fail "links are left: $(ip -br link)"
