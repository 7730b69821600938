# Stored bytes are flipped (data and parity), a segment and an index are deleted: every file still reads right, and it is logged.
source "$PROJECT/tests/e2e/lib.sh"
cluster_up
random_file "$WORK/big" 60000000 rot; cp "$WORK/big" "$mount/big"
mkdir "$mount/small"; for n in $(seq 100); do echo "file $n" > "$mount/small/$n"; done
sync -f "$mount"
check() { remount; same "$WORK/big" "$mount/big"; for n in $(seq 100); do [ "$(cat "$mount/small/$n")" = "file $n" ] || fail "small/$n"; done; }
logged() { # FILE TEXT: since the last call
  tail -n "+$((${seen[$1]:-0} + 1))" "$cluster/run/$1.log" | grep -qi "$2" || fail "$1 logs nothing of \"$2\""
  seen[$1]=$(wc -l < "$cluster/run/$1.log")
}
declare -A seen
stop_server() { victim=$(pid_of chunkserver "$1"); kill -9 "$victim"; eventually 5 stopped "$victim"; }
flip() { # SERVER
  for segment in "$cluster/chunkserver-$1"/segments/*; do
    size=$(stat -c %s "$segment")
    for at in $(seq 100000 300001 "$size"); do printf '\377\000\252' | dd of="$segment" bs=1 seek="$at" conv=notrunc status=none; done
  done
}
say "flip bytes on two servers: each chunk has a shard of data or parity there"
flip 1; flip 2; check; logged mount-1 'corrupt\|does not match'
say "what was read has been rebuilt meanwhile; flipped again, with another server gone: parity is used, and checked"
stop_server 2; flip 1; check; logged mount-1 'corrupt\|does not match'
restart "$victim" > /dev/null; eventually 20 healthy
say "a segment is deleted, of a server that was hit already: more would be lost than the scheme can bear"
stop_server 2; find "$cluster/chunkserver-2/segments" -type f | head -n 1 | xargs rm
restart "$victim" > /dev/null; check; logged chunkserver-2 'segments are missing'
say "an index is deleted"
stop_server 4; rm "$cluster/chunkserver-4"/index*
restart "$victim" > /dev/null; check; logged chunkserver-4 'is missing: making it anew'
say "an index of nonsense"
stop_server 5; head -c 100000 /dev/urandom > "$cluster/chunkserver-5/index.redb"
restart "$victim" > /dev/null; check; logged chunkserver-5 'is of no use'
