# The commands for users' files: what they say (objects.golden), trees that go up, change, and come down the same, transfers that are killed,
# stopped, or meet a cluster that breaks. UPDATE=yes writes the golden file anew. FULL: 20,000 files, and 2 GiB.
source "$PROJECT/tests/e2e/lib.sh"
cluster_up
export CAIRN_IDENTITY=$cluster/client-1
files=1500 mib=192
[ -z "${FULL:-}" ] || { files=20000; mib=2048; }
cairn() { "$CAIRN" "$@"; }
tree() { python3 "$PROJECT/tests/e2e/objects_tree.py" "$@"; }
hash_of() { b3sum --no-names "$1" 2>/dev/null || sha256sum < "$1"; }
no_parts() { [ -z "$(find "$1" -name '*.cairn-part')" ] || fail "left behind: $(find "$1" -name '*.cairn-part')"; }

# ---- what is said
transcript=$WORK/transcript
# Much is done at once: in which order it ends does not count.
in_order() { python3 -c '
import itertools, sys
done = lambda line: line.startswith(("copied: ", "removed: "))
for is_done, lines in itertools.groupby(sys.stdin, key=done): sys.stdout.writelines(sorted(lines) if is_done else lines)'; }
# Runs a command line and notes all that it says, without what differs from run to run.
t() {
  local code=0
  printf '$ %s\n' "${*//$WORK/WORK}" >> "$transcript"
  (cd "$WORK" && "$@") > "$WORK/said.out" 2> "$WORK/said.err" < "${INPUT:-/dev/null}" || code=$?
  for stream in out err; do
    sed -E -e "s#$WORK#WORK#g" -e 's/[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9:]{8}(\.[0-9]+Z)?/TIME/g' -e 's/in [0-9.]+ s \([^)]*\)/in SECONDS (RATE)/' \
      -e 's/"seconds":[0-9.e-]+/"seconds":SECONDS/' -e 's/"inode":[0-9]+/"inode":N/; s/inode: [0-9]+/inode: N/' "$WORK/said.$stream" |
      if [ $stream = err ]; then sed 's/^/! /'; else in_order; fi >> "$transcript"
  done
  [ $code = 0 ] || printf '[%d]\n' $code >> "$transcript"
}
umask 022
mkdir -p "$WORK/src/sub"; printf 'one\n' > "$WORK/src/one.txt"; printf 'two\n' > "$WORK/src/sub/two.txt"; printf 'log\n' > "$WORK/src/sub/x.log"
seq 20 > "$WORK/numbers"
say "transcripts"
t cairn ls
t cairn mb cairn://b cairn://other
t cairn mb cairn://b
t cairn mb -p cairn://b
t cairn mb cairn://b/key
t cairn cp numbers cairn://b/deep/er/numbers
t cairn cp numbers cairn://b/
t cairn cp -n src/one.txt cairn://b/numbers
t cairn cp -r --exclude '*.log' src cairn://b/tree
t cairn cp -r --exclude '*' --include '*.log' --dry-run src cairn://b/tree
t cairn cp --json src/one.txt cairn://b/json
INPUT=$WORK/numbers t cairn cp - cairn://b/stream
t cairn cp cairn://b/stream -
t cairn cp -q cairn://b/stream cairn://b/copy
t cairn cp cairn://b/tree/one.txt back.txt
t cat back.txt
t cairn cp -r cairn://b/tree back
t cairn ls cairn://b
t cairn ls -lrH cairn://b/tree
t cairn ls --json cairn://b/tree/sub
t cairn ls -d cairn://b/tree
t cairn ls cairn://b/numbers
t cairn stat cairn://b/numbers
t cairn stat --json cairn://b/tree
t cairn cat cairn://b/tree/one.txt cairn://b/tree/sub/two.txt
t cairn head -n 2 cairn://b/numbers
t cairn head -c 3 cairn://b/numbers cairn://b/tree/one.txt
t cairn find cairn://b --name '*.txt'
t cairn find cairn://b --type d --json
t cairn find cairn://b --larger 50
t cairn tree -s cairn://b
t cairn du -d1 cairn://b
t cairn du --json cairn://b/tree
t cairn touch cairn://b/touched
t cairn touch -c cairn://b/nothing
t cairn ln -s tree/one.txt cairn://b/soft
t cairn ln cairn://b/numbers cairn://b/hard
t cairn ln cairn://b/numbers cairn://b/hard
t cairn ls -l cairn://b/soft
t cairn cat cairn://b/soft
t cairn mv cairn://b/hard cairn://b/tree/
t cairn mv cairn://b/tree cairn://b/renamed
t cairn mv -r src/sub cairn://b/moved
t ls src
t cairn sync --dry-run src cairn://b/renamed
t cairn sync src cairn://b/synced
t cairn sync src cairn://b/synced
t cairn sync --delete src cairn://b/renamed
t cairn sync --delete --yes src cairn://b/renamed
t cairn rm cairn://b/copy
t cairn rm -r --dry-run cairn://b/moved
t cairn rm -r cairn://b/moved
t cairn rm -r --yes cairn://b/moved
t cairn rb cairn://other
t cairn rb cairn://b
t cairn rb --force cairn://b
say "what is refused"
t cairn cat cairn://b/nothing
t cairn cat cairn://nobucket/x
t cairn cat cairn://b/renamed
t cairn cat s3://b/x
t cairn cat cairn://b/../x
t cairn ls cairn://nobucket
t cairn cp numbers cairn://nobucket/x
t cairn cp numbers cairn://top
t cairn cp nothing cairn://b/
t cairn cp src cairn://b/x
t cairn cp numbers back.txt
t cairn cp numbers cairn://b/numbers/below
t cairn cp cairn://b/numbers back.txt/below
t cairn cp cairn://b/numbers cairn://b/numbers
t cairn cp -r cairn://b/renamed cairn://b/renamed/in/itself
t cairn cp numbers nothing cairn://b/both/
t cairn rm cairn://b/renamed
t cairn rm -r cairn://
t cairn mv cairn://b cairn://c
t cairn sync numbers cairn://b/x
mkdir "$mount/b/inway"; mkdir "$WORK/inway"; echo x > "$WORK/inway/inway"; mkdir "$mount/b/inway/inway"
t cairn cp -r inway cairn://b/inway
ln -s /etc/passwd "$mount/b/out"
t cairn cat cairn://b/out
if [ "$(id -u)" = 0 ] && command -v setpriv > /dev/null; then
  say "another user"
  cp -r "$CAIRN_IDENTITY" "$WORK/identity"; chmod -R a+rX "$WORK" "$WORK/identity"; chmod 711 "$WORK"
  echo secret > "$mount/b/secret"; chmod 600 "$mount/b/secret"; mkdir -m 1777 "$mount/b/shared"; echo mine > "$mount/b/shared/roots"
  nobody() { CAIRN_IDENTITY=$WORK/identity setpriv --reuid 65534 --regid 65534 --clear-groups "$CAIRN" "$@"; }
  t nobody cat cairn://b/secret
  t nobody cp numbers cairn://b/no
  t nobody rm cairn://b/numbers
  t nobody mb cairn://mine
  t nobody cp numbers cairn://b/shared/
  t nobody rm cairn://b/shared/roots
  t nobody touch cairn://b/numbers
  t cairn ls -l cairn://b/shared
  [ "$(stat -c '%u:%g %a' "$mount/b/shared/numbers")" = "65534:65534 644" ] || fail "a new file is not its maker's"
fi
golden=$PROJECT/tests/e2e/objects.golden
[ -z "${UPDATE:-}" ] || cp "$transcript" "$golden"
diff -u "$golden" "$transcript" || fail "the commands say something else than in objects.golden"
cairn rb --force --yes cairn://b

say "a tree of $files files: up, changed, up again, down elsewhere"
cairn mb cairn://t
tree make "$WORK/tree" "$files"
cairn sync --json "$WORK/tree" cairn://t/tree | tail -n 1 > "$WORK/first"
tree compare "$WORK/tree" "$mount/t/tree" || fail "not the same in the mount"
[ "$(cairn sync --json "$WORK/tree" cairn://t/tree | jq -s '.[-1].copied')" = 0 ] || fail "the second sync copies"
read -r changed removed <<< "$(tree change "$WORK/tree")"
cairn sync --json --delete --yes "$WORK/tree" cairn://t/tree | tail -n 1 > "$WORK/second"
[ "$(jq -r '"\(.copied) \(.removed) \(.failed)"' "$WORK/second")" = "$changed $removed 0" ] || fail "not only the changes moved: $(cat "$WORK/second")"
cairn sync -q cairn://t/tree "$WORK/down"
tree compare "$WORK/tree" "$WORK/down" || fail "not the same after it came down"
cairn sync -q cairn://t/tree cairn://t/across
[ "$(cairn sync --json --checksum "$WORK/tree" cairn://t/across | jq -s '.[-1].copied')" = 0 ] || fail "a copy within differs"
file=$(find "$WORK/tree" -name 'file *' -size +0 -print -quit); chmod 644 "$file"; before=$(stat -c %y "$file"); size=$(stat -c %s "$file")
head -c "$size" /dev/zero > "$file"; touch -d "$before" "$file"
[ "$(cairn sync --json "$WORK/tree" cairn://t/tree | jq -s '.[-1].copied')" = 0 ] || fail "size and time are the same, and it was copied"
[ "$(cairn sync --json --checksum "$WORK/tree" cairn://t/tree | jq -s '.[-1].copied')" = 1 ] || fail "--checksum did not see another content"
say "attributes alone have changed"
cairn sync -q cairn://t/tree "$WORK/down"
updated() { cairn sync --json "$1" "$2" | jq -s '.[-1] | "\(.copied) \(.updated) \(.failed)"' -r; }
xattr() { python3 -c 'import os, sys; exec(sys.argv[2])' "$@"; }
xattr "$WORK/tree/big" 'os.setxattr(sys.argv[1], "user.colour", b"red"); os.setxattr(sys.argv[1], "user.new", b"1")'
[ "$(updated "$WORK/tree" cairn://t/tree)" = "0 1 0" ] || fail "an extended attribute was not noticed on the way up"
[ "$(updated cairn://t/tree "$WORK/down")" = "0 1 0" ] || fail "an extended attribute was not noticed on the way down"
xattr "$WORK/tree/big" 'os.removexattr(sys.argv[1], "user.new")'; chmod 600 "$WORK/tree/new"
[ "$(updated "$WORK/tree" cairn://t/tree)" = "0 2 0" ] || fail "a mode, or an extended attribute that has gone, was not noticed"
[ "$(updated cairn://t/tree "$WORK/down")" = "0 2 0" ] || fail "a mode, or an extended attribute that has gone, was not noticed on the way down"
xattr "$WORK/down/big" 'assert os.listxattr(sys.argv[1]) == ["user.colour"] and os.getxattr(sys.argv[1], "user.colour") == b"red"'
[ "$(updated "$WORK/tree" cairn://t/tree)" = "0 0 0" ] || fail "nothing has changed"
no_parts "$mount/t"; no_parts "$WORK/down"
cairn rm -rqy cairn://t/across; cairn rm -rqy cairn://t/tree

say "holes"
truncate -s 1G "$WORK/sparse"; printf data | dd of="$WORK/sparse" bs=1M seek=700 conv=notrunc status=none
cairn cp -q "$WORK/sparse" cairn://t/sparse; cairn cp -q cairn://t/sparse "$WORK/sparse.back"
[ "$(stat -c %s "$WORK/sparse.back")" = $((1 << 30)) ] && [ "$(stat -c %b "$WORK/sparse.back")" -lt 256 ] || fail "$(stat "$WORK/sparse.back")"
[ "$(stat -c %b "$mount/t/sparse")" -lt 256 ] || fail "$(stat "$mount/t/sparse")"
cmp "$WORK/sparse" "$WORK/sparse.back"; rm "$WORK"/sparse*; cairn rm -q cairn://t/sparse

say "$mib MiB, killed half way, up and down"
random_file "$WORK/big" $((mib << 20)) objects
"$CAIRN" cp --bwlimit $((mib / 4))M -q "$WORK/big" cairn://t/big & copy=$!
sleep 2.5; kill -9 $copy; wait $copy 2>/dev/null && fail "it was too fast to be killed"
[ ! -e "$mount/t/big" ] || fail "half a file has its name"
eventually 5 sh -c "[ -n \"\$(find '$mount/t' -name '*.cairn-part')\" ]"
cairn cp --json "$WORK/big" cairn://t/big | tail -n 1 > "$WORK/sum"
resumed=$(jq .resumed_bytes "$WORK/sum"); say "$((resumed >> 20)) MiB were there already"
[ "$resumed" -gt $((4 << 20)) ] || fail "nothing was resumed: $(cat "$WORK/sum")"
no_parts "$mount/t"; remount
[ "$(hash_of "$WORK/big")" = "$(hash_of "$mount/t/big")" ] || fail "the content differs"
"$CAIRN" cp --bwlimit $((mib / 4))M -q cairn://t/big "$WORK/back.big" & copy=$!
sleep 2.5; kill -9 $copy; wait $copy 2>/dev/null && fail "it was too fast to be killed"
[ ! -e "$WORK/back.big" ] || fail "half a file has its name"
cairn cp --json cairn://t/big "$WORK/back.big" | tail -n 1 > "$WORK/sum"
[ "$(jq .resumed_bytes "$WORK/sum")" -gt $((4 << 20)) ] || fail "nothing was resumed: $(cat "$WORK/sum")"
same "$WORK/big" "$WORK/back.big"; rm "$WORK/back.big"; no_parts "$WORK"

say "stopped by Ctrl-C: said in a sentence, and it goes on"
cairn rm -q cairn://t/big
code=0; "$CAIRN" cp --bwlimit $((mib / 8))M "$WORK/big" cairn://t/big > "$WORK/said" 2>&1 & copy=$!
sleep 2; kill -INT $copy; wait $copy || code=$?
[ $code = 1 ] || fail "ended with $code"
grep -q "what has arrived is kept" "$WORK/said" || fail "said: $(cat "$WORK/said")"
cairn cp --json "$WORK/big" cairn://t/big | tail -n 1 | jq -e '.resumed_bytes > 0' > /dev/null || fail "not resumed"
same "$WORK/big" "$mount/t/big"; no_parts "$mount/t"

say "a source that changes meanwhile"
cp "$WORK/big" "$WORK/moving"
"$CAIRN" cp --bwlimit $((mib / 2))M "$WORK/moving" cairn://t/moving > "$WORK/said" 2>&1 & copy=$!
sleep 1; echo more >> "$WORK/moving"
code=0; wait $copy || code=$?
[ $code = 1 ] && grep -q "it changed while it was being copied" "$WORK/said" || fail "ended with $code: $(cat "$WORK/said")"
[ ! -e "$mount/t/moving" ] || fail "a mixture has its name"; no_parts "$mount/t"; rm "$WORK/moving"

say "a chunkserver and the master die in the middle"
"$CAIRN" cp --json --bwlimit $((mib / 6))M "$WORK/big" cairn://t/unlucky > "$WORK/sum" & copy=$!
sleep 1; victim=$(pid_of chunkserver 2); kill -9 "$victim"
sleep 1; master=$(pid_of master); kill -9 "$master"; sleep 1; restart "$master" > /dev/null
wait $copy || fail "the copy failed: $(cat "$WORK/sum")"
restart "$victim" > /dev/null; remount; same "$WORK/big" "$mount/t/unlucky"

if [ "$(id -u)" = 0 ]; then
  say "a full disk on this side"
  mkdir "$WORK/tiny"; mount -t tmpfs -o size=16m cairn-test "$WORK/tiny"
  refuses 60 "no space left on device" "$CAIRN" cp cairn://t/big "$WORK/tiny/big"
  [ -z "$(ls -A "$WORK/tiny")" ] || fail "something is left: $(ls -A "$WORK/tiny")"
  umount "$WORK/tiny"
fi
say "a listing that nobody reads to its end"
cairn ls -r cairn://t | head -n 1 > /dev/null
cairn cat cairn://t/big | head -c 1000 > /dev/null
