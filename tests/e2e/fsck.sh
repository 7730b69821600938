# cairn fsck: a healthy cluster is clean; flipped bytes and a deleted segment are found by --deep and mended by --repair; damage in the master's
# tables is found and mended, and what has lost its name is in lost+found, with its bytes.
source "$PROJECT/tests/e2e/lib.sh"
cluster_up
random_file "$WORK/big" 60000000 fsck; cp "$WORK/big" "$mount/big"
mkdir -p "$mount/deep/er" "$mount/small"; cp "$WORK/big" "$mount/deep/er/copy"; echo precious > "$mount/deep/er/gem"; ln "$mount/deep/er/gem" "$mount/hard"
for n in $(seq 300); do echo "file $n" > "$mount/small/$n"; done
sync -f "$mount"
sums() { (cd "$mount" && find . -path ./lost+found -prune -o -type f -print0 | sort -z | xargs -0 b3sum); }
sums > "$WORK/sums"
fsck() { code=0; "$CAIRN" fsck --data "$cluster/master" "$@" > "$WORK/out" 2> "$WORK/errors" || code=$?; }
expect() { [ "$code" = "$1" ] || fail "exit code $code instead of $1: $(cat "$WORK/out" "$WORK/errors")"; }
field() { jq -r "$1" "$WORK/out"; }

say "clean, shallow and deep, while somebody writes"
eventually 30 healthy
( while :; do dd if=/dev/zero of="$mount/busy" bs=4k count=50 conv=notrunc,fsync status=none; rm -f "$mount/busy2"; cp "$mount/busy" "$mount/busy2"; done ) & writer=$!
fsck; expect 0; grep -q '^clean$' "$WORK/out" || fail "$(cat "$WORK/out")"
fsck --deep --json; expect 0
[ "$(field '.clean and .found == 0 and .checked.chunks > 25 and .checked.bytes_hashed > 60000000 and .checked.rows > 1000')" = true ] || fail "$(cat "$WORK/out")"
kill "$writer"; wait "$writer" 2>/dev/null || true; rm -f "$mount/busy" "$mount/busy2"

say "nobody to ask, or asked wrongly: exit code 2"
fsck --nonsense; expect 2
code=0; "$CAIRN" fsck --data "$WORK/nowhere" > "$WORK/out" 2>&1 || code=$?; expect 2

say "flip bytes on one server and delete a segment of another"
for segment in "$cluster/chunkserver-1"/segments/*; do
  size=$(stat -c %s "$segment")
  for at in $(seq 100000 900001 "$size"); do printf '\377\000\252' | dd of="$segment" bs=1 seek="$at" conv=notrunc status=none; done
done
victim=$(pid_of chunkserver 2); kill -STOP "$victim"
fsck; expect 1; grep -q 'does not answer' "$WORK/out" || fail "a stopped server is not told: $(cat "$WORK/out")"
kill -9 "$victim"; eventually 5 stopped "$victim"
find "$cluster/chunkserver-2/segments" -type f | head -n 1 | xargs rm
restart "$victim" > /dev/null; eventually 20 healthy
fsck --deep --json; expect 1
damaged=$(field .checked.shards_damaged) missing=$(field .checked.shards_missing)
say "found: $damaged damaged, $missing missing"
[ "$damaged" -gt 5 ] && [ "$missing" -gt 5 ] || fail "$(field .checked)"
[ "$(field '[.problems[].class] | unique | join(" ")')" = "shard-damaged shard-missing" ] || fail "$(cat "$WORK/out")"
[ "$(field '.problems[0].chunk | length')" = 64 ] || fail "$(field '.problems[0]')"

say "mended"
fsck --deep --repair; expect 0; tail -n 2 "$WORK/out"
fsck --deep --json; expect 0
remount; sums | diff "$WORK/sums" -

say "lost entries, a wrong link count and wrong references in the master's tables"
inode=$(stat -c %i "$mount/hard") lost=$(stat -c %i "$mount/small/7")
master=$(pid_of master); kill -TERM "$master"; eventually 15 stopped "$master"
"$CAIRN" master --data "$cluster/master" dump "$WORK/dump"
key() { printf '%016x' "$1"; }
python3 - "$WORK/dump" "$WORK/bent" "$(key "$inode")" "$(key "$lost")" <<'END'
import base64, json, sys
source, target, hard, lost = sys.argv[1:]
rows, kept = [], []
for line in open(source):
    rows.append(json.loads(line))
def varint(bytes, at):
    value = shift = 0
    while True:
        byte = bytes[at]; at += 1
        value |= (byte & 127) << shift; shift += 7
        if byte < 128: return value, at
for row in rows[1:-1]:
    value = bytearray(base64.b64decode(row["v"]))
    # A dentry and a place in a listing: version, then what they name; the entry small/7 goes.
    if row["t"] == "dentries" and varint(value, 1)[0] == int(lost, 16): continue
    if row["t"] == "directory_index":
        length, at = varint(value, 1)
        if varint(value, at + length)[0] == int(lost, 16): continue
    if row["t"] == "inodes" and row["k"] == hard:
        at = 1
        for _ in range(3): _, at = varint(value, at)  # mode, uid, gid
        assert value[at] == 2, value
        value[at] = 9
    # A chunk's references follow its length, pool, scheme (two bytes) and slots.
    if row["t"] == "chunks" and not any(kept_row["t"] == "chunks" for kept_row in kept):
        at = varint(value, varint(value, 1)[1])[1] + 2
        at = varint(value, at)[1]
        value[at] += 1
    row["v"] = base64.b64encode(value).decode()
    kept.append(row)
with open(target, "w") as out:
    for row in [rows[0], *kept]: out.write(json.dumps(row, separators=(",", ":")) + "\n")
END
printf '{"rows":%d,"blake3":"%s"}\n' $(($(wc -l < "$WORK/bent") - 1)) "$(b3sum --no-names "$WORK/bent")" >> "$WORK/bent"
mv "$cluster/master" "$cluster/master.old"
"$CAIRN" master --data "$cluster/master" load "$WORK/bent"
cp -a "$cluster"/master.old/{authority.*,address,operator} "$cluster/master/"
restart "$master" > /dev/null; eventually 30 healthy
fsck --json; expect 1
[ "$(field '[.problems[].class] | unique | join(" ")')" = "chunk-references entry-count link-count unreachable" ] || fail "$(cat "$WORK/out")"
[ "$(field '.problems[] | select(.class == "link-count") | .path')" = /hard ] || [ "$(field '.problems[] | select(.class == "link-count") | .path')" = /deep/er/gem ] || fail "$(cat "$WORK/out")"
fsck --repair; expect 0; cat "$WORK/out"
fsck --json; expect 0
remount
[ "$(stat -c %h "$mount/hard")" = 2 ] || fail "hard has $(stat -c %h "$mount/hard") links"
[ "$(cat "$mount/lost+found/#$lost")" = "file 7" ] || fail "lost+found: $(ls -l "$mount/lost+found")"
mv "$mount/lost+found/#$lost" "$mount/small/7"
sums | diff "$WORK/sums" -
rm -r "$mount/small" "$mount/deep"; fsck --json; expect 0

say "more is lost than the scheme can bear: the file is named, and nothing is touched"
for server in 1 2 3; do victim=$(pid_of chunkserver "$server"); kill -9 "$victim"; eventually 5 stopped "$victim"; done
fsck --json --repair; expect 1
[ "$(field '[.problems[] | select(.class == "chunk-lost") | .path] | unique | join(" ")')" = "/big" ] || [ "$(field '.checked.chunks_lost')" -gt 5 ] || fail "$(cat "$WORK/out")"
