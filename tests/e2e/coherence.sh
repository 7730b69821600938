# Several mounts at once: whatever a call on one of them has done, the next call on every other sees; and one that dies delays others by no more than the
# fencing time. FULL: longer.
source "$PROJECT/tests/e2e/lib.sh"
cluster_up --mount "$WORK/second" --mount "$WORK/third" --mount "$WORK/fourth"
seconds=3; [ -z "${FULL:-}" ] || seconds=30
say "two mounts, then four"
mkdir "$mount/two" "$mount/four"
python3 "$PROJECT/tests/e2e/coherence.py" "$seconds" "$mount/two" "$WORK/second/two"
python3 "$PROJECT/tests/e2e/coherence.py" "$seconds" "$mount/four" "$WORK/second/four" "$WORK/third/four" "$WORK/fourth/four"

say "one mount unpacks a source tree, the other finds, sorts and reads it meanwhile"
mkdir "$WORK/plain"; tar -C "$PROJECT" -cf "$WORK/tree.tar" --exclude=target --exclude=.git .
tar -C "$WORK/plain" -xf "$WORK/tree.tar"
(cd "$WORK/plain" && find . -type f -print0 | sort -z | xargs -0 sha256sum) > "$WORK/sums"
mkdir "$mount/tree"
(tar -C "$mount/tree" -xf "$WORK/tree.tar"; touch "$WORK/unpacked") & unpacking=$!
rounds=0
until [ -e "$WORK/unpacked" ]; do
  (cd "$WORK/second/tree" && find . | sort > "$WORK/found"
   find . -type f -exec cat {} + > /dev/null) 2> "$WORK/errors" || true
  ! grep -v 'No such file or directory' "$WORK/errors" || fail "another error than that something is not there yet"
  rounds=$((rounds + 1))
done
wait $unpacking
(cd "$WORK/second/tree" && sha256sum --quiet -c "$WORK/sums") || fail "the other mount reads something else"
say "$rounds rounds, all content right"

directories=20; [ -z "$FULL" ] || directories=200
say "a warm listing of $((directories * 100)) files asks the master nothing"
mkdir "$mount/many"; for directory in $(seq $directories); do
  mkdir "$mount/many/$directory"; (cd "$mount/many/$directory" && touch $(seq 100))
done
requests() { status --json | jq '[.sessions[].requests] | add'; }
ls -lR "$WORK/second/many" > "$WORK/cold"
before=$(requests)
for _ in 1 2 3; do ls -lR "$WORK/second/many" > "$WORK/warm"; sleep 3; done
cmp "$WORK/cold" "$WORK/warm" || fail "a warm listing differs"
[ "$(requests)" = "$before" ] || fail "$(($(requests) - before)) requests for warm listings"

say "a mount that dies with data held back delays others by no more than the fencing time"
python3 "$PROJECT/tests/e2e/coherence.py" held "$WORK/fourth" > "$WORK/held" & holder=$!
eventually 5 grep -q written "$WORK/held"
kill -9 "$(pid_of mount 4)"; kill -9 $holder 2>/dev/null || true
begun=$SECONDS
[ "$(stat -c %s "$mount/held")" = 0 ] || fail "data that was never sent is there"
[ $((SECONDS - begun)) -le 12 ] || fail "it took $((SECONDS - begun)) s"
say "$((SECONDS - begun)) s"
echo now > "$WORK/second/held"; [ "$(cat "$mount/held")" = now ] || fail "it can't be used"
eventually 15 healthy
