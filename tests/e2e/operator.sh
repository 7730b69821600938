# What operators type: every command with its output, its errors and its exit codes. The last part mounts as /etc/fstab does.
source "$PROJECT/tests/e2e/lib.sh"
export HOME=$WORK/home XDG_CONFIG_HOME=$WORK/home/.config
unset CAIRN_MASTER CAIRN_IDENTITY CAIRN_PROFILE CAIRN_TOKEN
mkdir -p "$XDG_CONFIG_HOME/cairn"
cluster_up
data=(--data "$cluster/master")
random_file "$WORK/big" 20000000 operator; mkdir "$mount/dir"; cp "$WORK/big" "$mount/dir/big"; echo tiny > "$mount/dir/tiny"
truncate -s 5M "$mount/dir/hole"; ln -s big "$mount/dir/link"; sync -f "$mount"
has() { grep -q -- "$1" <<< "$output" || fail "no \"$1\" in: $output"; }
run() { output=$("$@" 2>&1) || fail "exit $?: $*: $output"; }

say "chunkserver list"
run "$CAIRN" chunkserver list "${data[@]}"; has '^s1 .* serving'; [ "$(wc -l <<< "$output")" = 7 ] || fail "$output"
run "$CAIRN" chunkserver list --json "${data[@]}"; jq -e 'length == 6 and all(.[]; .state == "serving" and (.targets | length) == 1)' <<< "$output" > /dev/null || fail "$output"

say "what costs redundancy is shown, and wants --yes without a terminal"
refuses 10 "Insist with --yes" "$CAIRN" chunkserver drain s1 "${data[@]}"
refuses 10 "without s1" "$CAIRN" chunkserver drain s1 "${data[@]}"
run "$CAIRN" chunkserver drain s1 --yes "${data[@]}"; has 's1 is being drained'
run "$CAIRN" chunkserver undrain s1 "${data[@]}"; has 's1 serves again'
refuses 10 "drain it first" "$CAIRN" chunkserver remove s1 --yes "${data[@]}"
refuses 10 "there is no chunkserver s9" "$CAIRN" chunkserver undrain s9 "${data[@]}"
refuses 5 "write the number of a chunkserver" "$CAIRN" chunkserver drain first "${data[@]}"
eventually 60 healthy

say "pool list and show"
run "$CAIRN" pool list "${data[@]}"; has '^default .*4+2 .*256'
run "$CAIRN" pool show "${data[@]}"; has 'any 2 disks of a group may be lost'; has '^t1 .*s1 .*serving'
run "$CAIRN" pool show default --json "${data[@]}"; jq -e '.scheme == "4+2" and (.holders | length) == 6 and ([.holders[].slots] | add) == 1536' <<< "$output" > /dev/null || fail "$output"
refuses 10 "there is no pool gold; there are: default" "$CAIRN" pool show gold "${data[@]}"

say "session list and evict"
run "$CAIRN" session list "${data[@]}"; has "mount on $mount"
id=$(awk '/mount on/ {print $1}' <<< "$output")
refuses 10 "Insist with --yes" "$CAIRN" session evict "$id" "${data[@]}"
refuses 10 "there is no session c999999999" "$CAIRN" session evict c999999999 --yes "${data[@]}"
refuses 5 "write the number of a session" "$CAIRN" session evict mine "${data[@]}"
run "$CAIRN" session evict "$id" --yes "${data[@]}"; has "$id has ended"
same "$WORK/big" "$mount/dir/big"; echo again > "$mount/dir/again"; [ "$(cat "$mount/dir/again")" = again ] || fail "the mount does not come back"
another() { [ "$("$CAIRN" session list "${data[@]}" | awk '/mount on/ {print $1}')" != "$id" ]; }
eventually 10 another

say "info and locate, inside a mount and without one"
run "$CAIRN" info "$mount/dir/big" "${data[@]}"; has 'file, inode'; has '20000000 bytes'; has 'shards are there'; mounted=$(sed 1d <<< "$output")
run "$CAIRN" info cairn://dir/big "${data[@]}"; [ "$(sed 1d <<< "$output")" = "$mounted" ] || fail "$output and $mounted"
run "$CAIRN" info --json cairn://dir/big "${data[@]}"
jq -e '.size == 20000000 and .stored_bytes == 20000000 and .chunks[0].shards_there == 6 and (.chunks[0].shards[0].address | length > 0)
  and .space.own_bytes > 29000000 and .space.own_bytes < 31000000' <<< "$output" > /dev/null || fail "$output"
run "$CAIRN" info --chunks cairn://dir/tiny "${data[@]}"; has 'shard 0 (copy'
run "$CAIRN" info cairn://dir/hole "${data[@]}"; has '5.0 MiB of holes'
run "$CAIRN" info cairn://dir "${data[@]}"; has 'directory, inode'
run "$CAIRN" info cairn://dir/link "${data[@]}"; has 'symbolic link'
run "$CAIRN" locate "$mount/dir/big" cairn://dir/tiny cairn://dir/hole "${data[@]}"; has '  s1 .*host=c1'; has 'no content that is stored'
run "$CAIRN" locate --json cairn://dir/tiny "${data[@]}"; jq -e '.[0].chunkservers | length == 3' <<< "$output" > /dev/null || fail "$output"
refuses 10 "does not exist in the cluster" "$CAIRN" info cairn://dir/nothing "${data[@]}"
refuses 10 "not a directory" "$CAIRN" info cairn://dir/tiny/more "${data[@]}"
refuses 10 "is not on a mount of CairnFS" "$CAIRN" info "$WORK/big" "${data[@]}"
refuses 10 "cannot look at" "$CAIRN" info "$WORK/nothing" "${data[@]}"
victim=$(pid_of chunkserver 3); kill -9 "$victim"; eventually 10 stopped "$victim"
run "$CAIRN" info --chunks cairn://dir/big "${data[@]}"; has 'is not known'
restart "$victim" > /dev/null; eventually 60 healthy

say "top"
dd if="$mount/dir/big" of=/dev/null bs=1M status=none
run "$CAIRN" top --once "${data[@]}"; has '^healthy'; has '^role  *where  *read/s'; has '^master  *127'; has '^s6 '; has "mount on"; has '^scrub: '
! grep -q '^s6 .* - *- *- *- *- *- *- *-$' <<< "$output" || fail "no load of s6: $output"
refuses 10 "pass --once" "$CAIRN" top "${data[@]}"

say "config"
cat > "$XDG_CONFIG_HOME/cairn/config.toml" <<TOML
profile = "home"
[profiles.home]
master = "$(cat "$cluster/master/address")"
identity = "$cluster/master/operator"
cache = 64
[profiles.nowhere]
master = "127.0.0.1:9"
TOML
run "$CAIRN" status; has '^healthy'
run "$CAIRN" config show; has '^master .*profile home'; has '^write-buffer .*default'
output=$(CAIRN_MASTER=elsewhere "$CAIRN" config show --identity /x); has '^master .*elsewhere.*\$CAIRN_MASTER'; has '^identity .*/x.*--identity'
run "$CAIRN" config show --profile nowhere --json; jq -e '.profile == "nowhere" and .settings[0].value == "127.0.0.1:9"' <<< "$output" > /dev/null || fail "$output"
refuses 30 "cannot reach the master" "$CAIRN" status --profile nowhere --identity "$cluster/master/operator"
refuses 5 "there is no profile work; there are: home, nowhere" "$CAIRN" status --profile work
echo 'colour = 1' > "$WORK/wrong.toml"; export CAIRN_CONFIG=$WORK/wrong.toml
refuses 5 "colour is not known" "$CAIRN" status
CAIRN_CONFIG=$WORK/missing.toml refuses 5 "does not exist" "$CAIRN" status
unset CAIRN_CONFIG

say "logs in JSON"
refuses 10 '"level":"ERROR"' "$CAIRN" --log-format json info cairn://dir/nothing "${data[@]}"
jq -e '.fields.message | test("does not exist")' <<< "$said" > /dev/null || fail "$said"
refuses 10 "does not exist: make the directory first" "$CAIRN" mount --background --log-format json --log "$WORK/json.log" "$WORK/missing"
jq -es 'length > 0' "$WORK/json.log" > /dev/null || fail "$(cat "$WORK/json.log")"

say "completions, manual pages, bench, quota"
for shell in bash zsh fish; do run "$CAIRN" completions $shell; has chunkserver; done
"$CAIRN" completions bash > "$WORK/completion"; bash -n "$WORK/completion"
"$CAIRN" man | grep -q '^.TH cairn 1'
run "$CAIRN" man --dir "$WORK/man"; for page in cairn cairn-mount cairn-chunkserver-drain; do [ -s "$WORK/man/$page.1" ] || fail "no $page.1"; done
run "$CAIRN" bench --big-size 8 --small-files 10 -p 2 "$mount"; has '^write big file .*MiB/s'; has '^stat files .*files/s'
run "$CAIRN" bench --big-size 1 --small-files 2 --json "$mount/dir"; jq -e 'length == 6 and .[0].rate > 0' <<< "$output" > /dev/null || fail "$output"
! ls "$mount" | grep -q cairn-bench || fail "the bench leaves things behind"
refuses 5 "is not a directory" "$CAIRN" bench "$WORK/big"
refuses 5 "not there yet" "$CAIRN" quota

say "mount -t cairn"
if [ "$(id -u)" = 0 ] && [ ! -e /sbin/mount.cairn ]; then
  trap 'rm -f /sbin/mount.cairn' EXIT
  ln -s "$CAIRN" /sbin/mount.cairn
  mkdir "$WORK/fstab"; address=$(cat "$cluster/master/address")
  mount -t cairn "$address:/dir" "$WORK/fstab" -o "noatime,_netdev,x-systemd.mount-timeout=9,identity=$cluster/master/operator,cache=32"
  same "$WORK/big" "$WORK/fstab/big"; grep -q "^cairn $WORK/fstab fuse.*noatime" /proc/mounts || fail "$(grep fstab /proc/mounts)"
  [ "$(stat -c %i "$WORK/fstab")" = "$(stat -c %i "$mount/dir")" ] || fail "the top of the mount has another inode"
  run "$CAIRN" info --json "$WORK/fstab" "${data[@]}"; jq -e --argjson ino "$(stat -c %i "$mount/dir")" '.inode == $ino' <<< "$output" > /dev/null || fail "$output"
  umount "$WORK/fstab"; ! mountpoint -q "$WORK/fstab" || fail "still mounted"
  refuses 30 "does not exist" mount -t cairn "$address" "$WORK/missing" -o "identity=$cluster/master/operator"
  refuses 30 "mount option" mount -t cairn "$address" "$WORK/fstab" -o "identity=$cluster/master/operator,sideways"
  refuses 30 "cannot find /nowhere" mount -t cairn "$address:/nowhere" "$WORK/fstab" -o "identity=$cluster/master/operator"
  rm /sbin/mount.cairn
fi
if command -v systemd-analyze > /dev/null; then
  say "systemd units"
  for unit in "$PROJECT"/scripts/systemd/*.service; do
    sed "s|/usr/bin/cairn|$CAIRN|" "$unit" > "$WORK/$(basename "$unit")"
  done
  systemd-analyze verify --man=no "$WORK"/cairn-master.service "$WORK"/cairn-chunkserver.service
fi
