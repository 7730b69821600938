# Every role shows its metrics, in the format that Prometheus reads; they count what happens, and what the scrub finds and mends.
source "$PROJECT/tests/e2e/lib.sh"
export MASTER_OPTIONS="--metrics 0" CHUNKSERVER_OPTIONS="--metrics 0 --scrub-rate 40" MOUNT_OPTIONS="--metrics 0"
cluster_up
page_of() { sed -n 's|.*metrics are at \(http://[^ ]*\).*|\1|p' "$cluster/run/$1.log" | tail -n 1; }
# As a whole: a reader that leaves early would look like an error.
scrape() { local page; page=$(curl -sS --fail --max-time 5 "$(page_of "$1")"); printf '%s\n' "$page"; }
says() { local page; page=$(scrape "$1"); grep -q "$2" <<< "$page" || fail "$1 has no $2: $(grep "$3" <<< "$page")"; }
metric() { scrape "$1" | python3 "$PROJECT/tests/e2e/exposition.py" "$2"; } # NAME METRIC: the sum of its samples
at_least() { [ "$(metric "$1" "$2")" -ge "$3" ] || fail "$1: $2 is $(metric "$1" "$2") and not at least $3"; }

say "work"
random_file "$WORK/big" 30000000 metrics; cp "$WORK/big" "$mount/big"
mkdir "$mount/small"; for n in $(seq 100); do echo "file $n" > "$mount/small/$n"; done
sync -f "$mount"; remount; same "$WORK/big" "$mount/big"; for n in $(seq 100); do cat "$mount/small/$n"; done > /dev/null

say "three roles, three pages"
names=$(for role in master chunkserver-1 mount-1; do scrape $role; done | sed -n 's/^# TYPE \([^ ]*\) .*/\1/p' | sort -u)
for role in master chunkserver-1 chunkserver-6 mount-1; do scrape "$role" | python3 "$PROJECT/tests/e2e/exposition.py" || fail "the page of $role"; done
at_least master cairn_master_request_seconds_count 100
says master '^cairn_master_request_seconds_count{operation="create"} 10[2-9]$' create
says master '^cairn_master_groups{pool="default",state="healthy"} 256$' groups
at_least master cairn_master_sessions 1
at_least chunkserver-1 cairn_chunkserver_received_bytes_total 1000000
at_least mount-1 cairn_client_read_bytes_total 30000000
scrape mount-1 | grep '^cairn_client_operation_seconds_count{operation="read"}'
scrape mount-1 | grep '^cairn_client_chunkserver_request_seconds_count{operation="get"}'

say "each of them is described"
for name in $names; do
  case $name in cairn_client_*_total) continue ;; esac
  grep -q "\`$name\`" "$PROJECT/docs/metrics.md" || fail "docs/metrics.md does not name $name"
done
for name in $(scrape mount-1 | sed -n 's/^# TYPE cairn_client_\([a-z_]*_total\) .*/\1/p'); do
  grep -q "\`$name\`" "$PROJECT/docs/metrics.md" || fail "docs/metrics.md does not name cairn_client_$name"
done

say "five flipped bytes are found and mended, and counted"
damaged() { metric chunkserver-2 cairn_damaged_shards_repaired_total; }
[ "$(damaged)" = 0 ] || fail "repaired too early"
before=$(metric chunkserver-2 cairn_repaired_bytes_total)
python3 "$PROJECT/tests/e2e/flip.py" 5 2 7 "$cluster/chunkserver-2"
mended() { [ "$(damaged)" -ge 5 ]; }
eventually 120 mended
[ "$(damaged)" = 5 ] || fail "$(damaged) repaired"
at_least chunkserver-2 cairn_damaged_shards_found_total 5
at_least chunkserver-2 cairn_repaired_bytes_total $((before + 5))
at_least chunkserver-2 cairn_scrub_shards_total 5
at_least chunkserver-2 cairn_scrub_passes_total 1
status --json | jq -e '.scrub.damaged_repaired == 5 and .scrub.corrupt_found == 5' > /dev/null || fail "$(status --json | jq .scrub)"

say "strangers get little"
page=$(page_of master)
[ "$(curl -s -o /dev/null -w '%{http_code}' "${page%metrics}secrets")" = 404 ] || fail "another path"
[ "$(curl -s -o /dev/null -w '%{http_code}' -X POST -d x "$page")" = 405 ] || fail "another method"
grep -q '^Content-Type: text/plain; version=0.0.4' <<< "$(curl -sS -I "$page")" || fail "the type"
port=${page#http://127.0.0.1:}; port=${port%/metrics}
for _ in $(seq 20); do sleep 30 < /dev/null > "/dev/tcp/127.0.0.1/$port" & pids+=" $!"; done
# Who says nothing is sent away after five seconds, and others are served then.
curl -sS --max-time 20 "$page" > /dev/null || fail "held up by those who say nothing"
kill $pids 2> /dev/null || true

say "a port that is in use is named"
mkdir "$WORK/other"
refuses 20 "the TCP port is in use" "$CAIRN" mount --metrics "$port" --master "$(cat "$cluster/master/address")" --identity "$cluster/master/operator" "$WORK/other"
refuses 5 "write a port" "$CAIRN" master --data "$WORK/m" --metrics nonsense
