# A write with O_SYNC, O_DSYNC, RWF_SYNC or RWF_DSYNC, buffered or with O_DIRECT, is with the cluster when it returns: the mount is killed
# right after it, with the file still open. The same writes without are lost then, which shows that the kernel's fsync makes the difference.
source "$PROJECT/tests/e2e/lib.sh"
cluster_up
O_DSYNC=$((0x1000)) O_SYNC=$((0x101000)) O_DIRECT=$((0x4000)) O_APPEND=$((0x400)) RWF_DSYNC=2 RWF_SYNC=4

# Writes 4 KiB in one call, says so, and keeps the file open.
writer() { # NAME OPEN-FLAGS WRITE-FLAGS
  perl -MFcntl -e '
    my ($file, $done, $open, $write) = @ARGV;
    # Numbers, not strings: syscall would pass those as pointers.
    ($open, $write) = ($open + 0, $write + 0);
    sysopen(my $handle, $file, O_CREAT | O_RDWR | $open) or die "$file: $!";
    my $data = "x" x 4096;
    # pwritev2; an offset of -1 is the place of the descriptor.
    my $written = syscall(328, fileno($handle), pack("PQ", $data, 4096), 1, -1, -1, $write);
    die "$file: $written: $!" unless $written == 4096;
    open(my $flag, ">", $done) or die $!; close($flag);
    sleep 1000;
  ' "$mount/$1" "$WORK/$1.done" "$2" "$3" &
}
synced=()
sync_writer() { synced+=("$1"); writer "$@"; }
sync_writer sync $O_SYNC 0
sync_writer dsync $O_DSYNC 0
sync_writer direct_sync $((O_DIRECT | O_SYNC)) 0
sync_writer direct_dsync $((O_DIRECT | O_DSYNC)) 0
sync_writer append_sync $((O_APPEND | O_SYNC)) 0
sync_writer append_dsync $((O_APPEND | O_DSYNC)) 0
sync_writer append_rwf_dsync $O_APPEND $RWF_DSYNC
sync_writer rwf_sync 0 $RWF_SYNC
sync_writer rwf_dsync 0 $RWF_DSYNC
sync_writer rwf_direct_sync $O_DIRECT $RWF_SYNC
sync_writer rwf_direct_dsync $O_DIRECT $RWF_DSYNC
for name in "${synced[@]}"; do eventually 20 test -e "$WORK/$name.done"; done
# These last, for after five seconds the mount sends what was written without being asked.
writer buffered 0 0; writer direct $O_DIRECT 0
for name in buffered direct; do eventually 3 test -e "$WORK/$name.done"; done
kill -9 "$(pid_of mount)"
kill $(jobs -p); wait
remount
head -c 4096 /dev/zero | tr '\0' x > "$WORK/expected"
for name in "${synced[@]}"; do same "$WORK/expected" "$mount/$name"; done
for name in buffered direct; do [ "$(stat -c %s "$mount/$name")" = 0 ] || fail "$name survived, so this test shows nothing"; done
