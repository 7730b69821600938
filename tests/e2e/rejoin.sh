# A chunkserver whose certificate is lost (or was not valid any more) joins again with a new token and keeps its data.
source "$PROJECT/tests/e2e/lib.sh"
cluster_up
random_file "$WORK/file" 20000000 rejoin; cp "$WORK/file" "$mount/file"; sync "$mount/file"
victim=$(pid_of chunkserver 2) data=$cluster/chunkserver-2
kill -TERM "$victim"; eventually 15 stopped "$victim"; rm -r "$data/identity"
server=("$CAIRN" chunkserver --master "$(cat "$cluster/master/address")" --data "$data" --listen 127.0.0.1:0)
refuses 10 "has not joined" "${server[@]}"
"${server[@]}" --token "$("$CAIRN" token create --data "$cluster/master" --role chunkserver)" --label host=c2 > "$WORK/log" 2>&1 & again=$!
eventually 20 healthy
say "its shards are needed: two others are gone"
kill -9 "$(pid_of chunkserver 4)" "$(pid_of chunkserver 6)"; remount; same "$WORK/file" "$mount/file"
kill -TERM $again; wait $again
