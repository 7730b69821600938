# How a mount is asked for, and how it goes away: options, directories in CairnFS, the background, kills.
source "$PROJECT/tests/e2e/lib.sh"
cluster_up
there=$WORK/there; mkdir "$there"
"$CAIRN" status --master "$(cat "$cluster/master/address")" --identity "$WORK/i" --token "$("$CAIRN" token create --data "$cluster/master" --role client)" > /dev/null
in_background() { "$CAIRN" mount --identity "$WORK/i" --background "$@" > "$WORK/said"; grep -q "^CairnFS is mounted on " "$WORK/said"; }
mkdir -p "$mount/sub/deeper"; echo inside > "$mount/sub/f"; echo plain > "$mount/plain"; chmod 755 "$WORK"
say "options"
in_background -o ro "$there"; [ "$(cat "$there/plain")" = plain ]
! touch "$there/x" 2> "$WORK/error" || fail "wrote to a read-only mount"; grep -q 'Read-only' "$WORK/error"
"$CAIRN" umount "$there"
say "a mount that follows at once on the same directory stays (the process of the one before used to unmount it)"
in_background -o default_permissions,allow_other,noatime,nosuid,nodev "$there"; sleep 1; [ "$(cat "$there/plain")" = plain ]
grep " $there " /proc/mounts | grep nosuid | grep nodev | grep noatime | grep -q allow_other
setpriv --reuid=65534 --regid=65534 --clear-groups cat "$there/plain" > /dev/null
! setpriv --reuid=65534 --regid=65534 --clear-groups touch "$there/no" 2> /dev/null || fail "nobody wrote to root's directory"
"$CAIRN" umount "$there"
in_background "$there"; ! setpriv --reuid=65534 --regid=65534 --clear-groups ls "$there" 2> /dev/null || fail "another user looked into a private mount"
"$CAIRN" umount "$there"
say "a directory in CairnFS as the root"
in_background sub "$there"; [ "$(ls "$there")" = "$(printf 'deeper\nf')" ]; echo new > "$there/deeper/new"; [ "$(cat "$mount/sub/deeper/new")" = new ]
[ "$(stat -c %i "$there")" = "$(stat -c %i "$there/deeper/..")" ]; "$CAIRN" umount "$there"
in_background /sub/deeper "$there"; [ "$(cat "$there/new")" = new ]; "$CAIRN" umount "$there"
refuses 10 "is not a directory" "$CAIRN" mount --identity "$WORK/i" --background plain "$there"
say "the background process has a log, and lives on when there is something to say"
in_background "$there"; log=$(ls "$WORK"/i/mount-*there.log)
victim=$(pid_of master); kill -9 "$victim"; (sleep 1; restart "$victim" > /dev/null) & echo through > "$there/through"; wait $!
[ "$(cat "$there/through")" = through ]; grep -q 'lost contact' "$log" || fail "nothing in $log"
say "killed, and mounted again on the same directory"
pkill -9 -f -- "--identity $WORK/i " || fail "there is no such process"
in_background "$there"; [ "$(cat "$there/through")" = through ]
say "unmounted by others, or by a signal, the process ends"
mounted_by() { pgrep -f -- "--identity $WORK/i "; }
gone() { ! mounted_by; }
umount "$there"; eventually 5 gone
in_background "$there"; kill -TERM "$(mounted_by)"; eventually 5 gone; ! mountpoint -q "$there"
in_background "$there"; exec 7< "$there/plain"; "$CAIRN" umount --lazy "$there"; [ "$(cat <&7)" = plain ]; exec 7<&-
eventually 5 gone
say "data written just before the end is there"
in_background "$there"; random_file "$WORK/random" 30000000 mounting; cp "$WORK/random" "$there/random"; exec 7>> "$there/open"; echo tail >&7
kill -TERM "$(mounted_by)"; eventually 10 gone; exec 7>&- || true
same "$WORK/random" "$mount/random"; [ "$(cat "$mount/open")" = tail ]
say "the status as JSON"
json_is_right() { status --json | python3 "$PROJECT/tests/e2e/status_shape.py"; }
# A master that was restarted hears from its servers within seconds.
eventually 10 json_is_right
