# Mixed files are being written while two of six chunkservers are killed; then a third; then they come back. FULL: 3 GiB.
source "$PROJECT/tests/e2e/lib.sh"
cluster_up
total=200000000
[ -z "${FULL:-}" ] || total=3221225472
source_files=$WORK/source; mkdir "$source_files"
sizes=(1000 4096 70000 500001 3000000 $((total / 20)) 12345 8388608)
say "making $total bytes of files"
made=0 number=0
while [ $made -lt $total ]; do
  size=${sizes[$((number % ${#sizes[@]}))]}; number=$((number + 1))
  random_file "$source_files/$number" "$size" "$number"; made=$((made + size))
done
say "a third of $number files is there before, and read cold"
first=$((number / 3))
for n in $(seq "$first"); do cp "$source_files/$n" "$mount/$n"; done; sync -f "$mount"
say "writing the others while two are killed"
progress=$WORK/progress; echo 0 > "$progress"
(for n in $(seq $((first + 1)) "$number"); do
  cp "$source_files/$n" "$mount/$n"
  [ $((n % 3)) != 0 ] || sync "$mount/$n"
  echo $((n - first)) > "$progress"
done; sync -f "$mount") &
writer=$!
victims=("$(pid_of chunkserver 2)" "$(pid_of chunkserver 5)" "$(pid_of chunkserver 3)")
progressed() { [ "$(cat "$progress")" -ge "$1" ] || ! kill -0 $writer 2>/dev/null; }
eventually 300 progressed $(((number - first) / 4)); kill -9 "${victims[0]}"
eventually 300 progressed $(((number - first) / 2)); kill -9 "${victims[1]}"
kill -0 $writer || fail "all was written before two were killed"
wait $writer || fail "writing did not go on"
# Each file is right, or (argument "some") gives EIO within 10 s. Prints how many gave EIO.
try_file() { # FILE all|some
  local started=$SECONDS error
  cmp -s "$source_files/$1" "$mount/$1" 2>/dev/null && return 0
  [ "$2" = some ] || { echo "$1 differs or can't be read" >&2; return 255; }
  started=$SECONDS
  error=$(cat "$mount/$1" 2>&1 > /dev/null) && { echo "$1 has wrong bytes" >&2; return 255; }
  [ $((SECONDS - started)) -le 10 ] || { echo "EIO for $1 took $((SECONDS - started)) s" >&2; return 255; }
  case "$error" in *"Input/output error"*) echo "$1" ;; *) echo "$1: $error" >&2; return 255 ;; esac
}
export -f try_file; export source_files mount
try_all() { seq "$number" | xargs -P 4 -I{} bash -c "try_file {} $1"; }
say "two are gone: every byte is there"
remount; [ -z "$(try_all all)" ]
say "three are gone: what needs them gives EIO soon, the rest works"
kill -9 "${victims[2]}"; remount
broken=$(try_all some | wc -l); say "$broken of $number files can't be read"
large=$(cd "$source_files" && seq "$first" | xargs stat -c %s | awk '$1 > 65536' | wc -l)
[ "$broken" -ge "$large" ] || fail "files of six shards were read from three"
[ "$broken" -lt "$number" ] || fail "files written with fewer servers need three of the old ones"
ls -l "$mount" > /dev/null
touch "$mount/new"; mv "$mount/new" "$mount/newer"; rm "$mount/newer"
status | grep -q 'NOT HEALTHY'
say "they are back: all is readable"
for victim in "${victims[@]}"; do restart "$victim" > /dev/null; done
eventually 30 healthy
remount; [ -z "$(try_all all)" ]
