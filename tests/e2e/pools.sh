# Pools and policies: content goes where the policy of its directory says, to chunkservers with the right labels; what it can't do it says.
source "$PROJECT/tests/e2e/lib.sh"
cluster_up --chunkservers 3 --scheme 2+1
data=(--data "$cluster/master")
for _ in 4 5 6; do CHUNKSERVER_OPTIONS="--label media=ssd" "$PROJECT/scripts/dev-cluster" add --data "$cluster" > /dev/null; done
eventually 60 healthy
has() { grep -q -- "$1" <<< "$output" || fail "no \"$1\" in: $output"; }
run() { output=$("$@" 2>&1) || fail "exit $?: $*: $output"; }
servers_of() { "$CAIRN" locate --json "$1" "${data[@]}" | jq -r '[.[0].chunkservers[].chunkserver] | sort | join(" ")'; }
on() { local found; found=$(servers_of "$2"); [ "$found" = "$1" ] || fail "$2 is on $found instead of $1"; }
schemes_of() { "$CAIRN" info --json "$1" "${data[@]}" | jq -r '[.chunks[].scheme] | unique | join(" ")'; }

say "pool create"
refuses 10 "4+2 needs 6 disks, and there are 3 on chunkservers labelled media=ssd" "$CAIRN" pool create wide --labels media=ssd "${data[@]}"
refuses 10 "there are 0 on chunkservers labelled media=tape,site=a" "$CAIRN" pool create none --scheme 1+0 --labels media=tape,site=a "${data[@]}"
refuses 10 "can't be the name of a pool" "$CAIRN" pool create 'a/b' --scheme 1+1 "${data[@]}"
refuses 5 "write KEY=VALUE" "$CAIRN" pool create odd --labels media "${data[@]}"
run "$CAIRN" pool create fast --scheme 1+2 --labels media=ssd "${data[@]}"; has 'cairn policy set PATH --pool fast'
refuses 10 "there is a pool fast already" "$CAIRN" pool create fast --scheme 1+2 "${data[@]}"
run "$CAIRN" pool list "${data[@]}"; has '^fast .*1+2 .*256 .*media=ssd'; has '^default .*2+1'
run "$CAIRN" pool show fast --json "${data[@]}"
jq -e '[.holders[].chunkserver] == ["s4", "s5", "s6"] and .labels == {"media": "ssd"}' <<< "$output" > /dev/null || fail "$output"
eventually 10 healthy

say "policy set and get"
mkdir -p "$mount/hot/sub" "$mount/cold"; echo before > "$mount/hot/sub/old"; sync -f "$mount"
run "$CAIRN" policy get cairn:// "${data[@]}"; has '^cairn://: pool default (2+1), for no directory above has a policy'
run "$CAIRN" policy set "$mount/hot" --pool fast "${data[@]}"; has 'pool fast (1+2 on media=ssd), by its own policy'
run "$CAIRN" policy get cairn://hot/sub "${data[@]}"; has 'by the policy of cairn://hot$'
run "$CAIRN" policy get "$mount/hot/sub" "${data[@]}"; has "by the policy of $mount/hot$"
run "$CAIRN" policy get --json cairn://hot/sub "${data[@]}"
jq -e '.pool == "fast" and .scheme == "1+2" and .source == "inherited" and .from == "cairn://hot"' <<< "$output" > /dev/null || fail "$output"
run "$CAIRN" policy get cairn://hot/sub/old "${data[@]}"; has 'pool default (2+1), since the file was made'
refuses 10 "there is no pool gold; there are: default (2+1); fast (1+2 on media=ssd)" "$CAIRN" policy set cairn://cold --pool gold "${data[@]}"
refuses 10 "no pool is like that" "$CAIRN" policy set cairn://cold --scheme 1+2 "${data[@]}"
refuses 10 "is not a directory" "$CAIRN" policy set cairn://hot/sub/old --pool fast "${data[@]}"
refuses 10 "does not exist" "$CAIRN" policy set cairn://nothing --pool fast "${data[@]}"
refuses 10 "cannot look at" "$CAIRN" policy get "$WORK/nothing" "${data[@]}"
refuses 5 "required" "$CAIRN" policy set cairn://cold "${data[@]}"

say "content goes there, from a mount and from the command line"
# Whole chunks in both pools: a short end would be cut as the scheme wants it.
random_file "$WORK/one" 8388608 one; random_file "$WORK/two" 9000000 two; random_file "$WORK/three" 8388608 three
export CAIRN_IDENTITY=$cluster/client-1
cp "$WORK/one" "$mount/hot/sub/one"; seq 1000 > "$mount/hot/sub/small"; sync "$mount/hot/sub/one" "$mount/hot/sub/small"
run "$CAIRN" cp -q "$WORK/two" cairn://hot/sub/two
for name in one small two; do on "s4 s5 s6" "cairn://hot/sub/$name"; [ "$(schemes_of "cairn://hot/sub/$name")" = 1+2 ] || fail "$name: $(schemes_of "cairn://hot/sub/$name")"; done
cp "$WORK/three" "$mount/cold/three"; sync "$mount/cold/three"
[ "$(schemes_of cairn://cold/three)" = 2+1 ] || fail "$(schemes_of cairn://cold/three)"

say "equal content is stored once, where it is protected better"
cp "$WORK/one" "$mount/cold/one"; sync "$mount/cold/one"; on "s4 s5 s6" cairn://cold/one
run "$CAIRN" cp -q cairn://cold/three cairn://hot/three; on "s4 s5 s6" cairn://hot/three; on "s4 s5 s6" cairn://cold/three
cp "$mount/cold/three" "$mount/hot/again"; sync "$mount/hot/again"; on "s4 s5 s6" cairn://hot/again
remount
for copy in hot/sub/one cold/one; do same "$WORK/one" "$mount/$copy"; done
for copy in hot/three cold/three hot/again; do same "$WORK/three" "$mount/$copy"; done
same "$WORK/two" "$mount/hot/sub/two"

say "two of its three servers may go"
for number in 4 5; do kill -9 "$(pid_of chunkserver $number)"; done
remount; same "$WORK/one" "$mount/hot/sub/one"; same "$WORK/three" "$mount/cold/three"
for number in 4 5; do restart "$(pid_of chunkserver $number)" > /dev/null; done
eventually 60 healthy

say "back to the default"
run "$CAIRN" policy set cairn://hot --inherit "${data[@]}"; has 'pool default (2+1), for no directory above'
echo after > "$mount/hot/after"; sync "$mount/hot/after"
run "$CAIRN" policy get cairn://hot/after "${data[@]}"; has 'pool default'
run "$CAIRN" policy get cairn://hot/sub/one "${data[@]}"; has 'pool fast'
run "$CAIRN" fsck "${data[@]}"
