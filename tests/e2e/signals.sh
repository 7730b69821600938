# While the master is away, a process that waits for it can be killed. Afterwards the mount goes on, and what was given up was done once
# or not at all.
source "$PROJECT/tests/e2e/lib.sh"
cluster_up
cd "$mount"
mkdir d
for n in $(seq 8); do echo "content $n" > "d/$n"; ln "d/$n" "d/$n.link"; done
printf 'old content' > old; printf 'open' > open
bash -c 'printf begun >&3; exec sleep 1000' 3> half & writer=$!
bash -c 'exec sleep 1000' 3>> open & idle=$!
eventually 20 grep -q begun half; eventually 20 test -e "/proc/$idle/fd/3"
# Without OLDPWD: bash would look at it when it starts, and wait there.
cd /; unset OLDPWD

# Runs a command that has to wait, sends it SIGNAL after two seconds, and sees that it ends soon.
gives_way() { # SIGNAL COMMAND...
  local code=0 signal=$1; shift
  timeout -s KILL 8 timeout -s "$signal" 2 "$@" > /dev/null 2>&1 || code=$?
  [ "$code" = 124 ] || [ "$signal $code" = "KILL 137" ] || fail "SIG$signal: exit status $code: $*"
}
gone_soon() { # PID
  local tries=0
  until ! grep -qs '^State:.[^Z]' "/proc/$1/status"; do tries=$((tries + 1)); [ $tries -lt 40 ] || fail "process $1 is still there: $(grep State "/proc/$1/status")"; sleep 0.1; done
}

say "killed at once after the master"
kill -9 "$(pid_of master)"
for n in 1 2 3 4; do gives_way INT mv "$mount/d/$n" "$mount/d/$n.new" & done
for n in 5 6; do gives_way TERM ln "$mount/d/$n" "$mount/d/$n.more" & done
for n in 7 8; do gives_way KILL rm "$mount/d/$n.link" & done
for job in $(jobs -p); do [ "$job" = $writer ] || [ "$job" = $idle ] || wait "$job" || fail "see above"; done
# From now on the mount knows that the master is away: nothing is sent to it any more.
sleep 12
say "questions and changes"
gives_way INT stat "$mount/d"
gives_way TERM stat "$mount/absent"
gives_way HUP ls "$mount/d"
gives_way QUIT cat "$mount/old"
gives_way KILL df "$mount"
gives_way INT mkdir "$mount/never"
gives_way TERM truncate -s 3 "$mount/old"
gives_way KILL mv "$mount/old" "$mount/moved"
gives_way INT dd if=/dev/zero of="$mount/new" bs=1M count=1
say "a program that handles the signal"
code=0
timeout -s KILL 8 timeout --preserve-status -s INT 2 bash -c 'trap "exit 7" INT; [ -e "$1" ]; sleep 9' - "$mount/asked" || code=$?
[ $code = 7 ] || fail "its handler did not run: exit status $code"
say "processes with files open"
kill -9 $writer; gone_soon $writer
kill $idle; gone_soon $idle
grep -q "^fuse\|cairn" <(awk -v m="$mount" '$2 == m {print $1, $3}' /proc/mounts) || fail "the mount is gone"

say "the master is back"
restart "$(pid_of master)" > /dev/null
cd "$mount"
timeout 30 stat d > /dev/null || fail "the mount does not go on"
# What was on its way is done by now.
sleep 3
for n in 1 2 3 4; do
  [ "$(ls "d/$n" "d/$n.new" 2>/dev/null | wc -l)" = 1 ] || fail "renaming $n: $(ls d)"
  [ "$(cat "d/$n" 2>/dev/null || cat "d/$n.new")" = "content $n" ] || fail "the content of $n"
done
for n in 5 6; do [ "$(stat -c %h "d/$n")" = "$(ls "d/$n" "d/$n.link" "d/$n.more" 2>/dev/null | wc -l)" ] || fail "links of $n"; done
for n in 7 8; do [ "$(stat -c %h "d/$n")" = "$(ls "d/$n" "d/$n.link" 2>/dev/null | wc -l)" ] || fail "links of $n"; done
for name in never moved new asked; do [ ! -e $name ] || fail "$name was asked for, and given up before it was sent"; done
[ "$(cat old)" = "old content" ] || fail "a truncation that was given up"
[ "$(cat half)" = begun ] || fail "what the killed process had written"
printf more > half; mkdir never; [ "$(cat half)" = more ] && [ -d never ]
cd /; remount
[ "$(cat "$mount/half")" = more ] && [ "$(cat "$mount/old")" = "old content" ]

say "by force"
kill -9 "$(pid_of master)"
stat "$mount/anything" > /dev/null 2> "$WORK/told" & waiting=$!
sleep 3; [ -e "/proc/$waiting" ] || fail "it did not wait"
timeout 10 "$CAIRN" umount --force "$mount" || fail "umount --force"
gone_soon $waiting
! mountpoint -q "$mount" || fail "still mounted"
