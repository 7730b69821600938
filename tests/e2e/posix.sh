# The calls that ordinary programs make, on a real mount.
source "$PROJECT/tests/e2e/lib.sh"
cluster_up
cd "$mount"
say "names, links, modes, times"
mkdir -m 750 d; echo hello > d/f; ln d/f d/hard; ln -s f d/soft
[ "$(stat -c %h d/f)" = 2 ] && [ "$(readlink d/soft)" = f ] && [ "$(cat d/soft)" = hello ] && [ "$(stat -c %a d)" = 750 ]
chmod 4711 d/f; [ "$(stat -c %a d/f)" = 4711 ]; chown 12:34 d/f; [ "$(stat -c %u:%g d/hard)" = 12:34 ]
touch -d '2001-02-03 04:05:06.123456789 UTC' d/f; [ "$(TZ=UTC stat -c %y d/f)" = "2001-02-03 04:05:06.123456789 +0000" ]
mv d/f d/g; [ ! -e d/f ] && [ "$(cat d/g)" = hello ]
echo other > d/h; mv d/h d/g; [ "$(cat d/g)" = other ] && [ "$(cat d/hard)" = hello ]
mkfifo d/fifo; mknod d/null c 1 3; [ -p d/fifo ] && [ -c d/null ]
long=$(printf 'n%.0s' $(seq 255)); touch "$long"; [ -e "$long" ]; ! touch "${long}n" 2>/dev/null || fail "a name of 256 bytes"
printf x > $'strange \xff\n name'; [ "$(ls | wc -l)" -ge 3 ]
! rmdir d 2>/dev/null || fail "removed a full directory"
! mkdir d 2>/dev/null || fail "made a directory twice"
! mv d d/inside 2>/dev/null || fail "moved a directory into itself"
say "sparse files, truncation, append"
truncate -s 3G sparse; [ "$(stat -c %s sparse)" = 3221225472 ] && [ "$(stat -c %b sparse)" = 0 ]
printf end | dd of=sparse bs=1 seek=3000000000 conv=notrunc status=none
[ "$(dd if=sparse bs=1 skip=3000000000 count=3 status=none)" = end ]
[ "$(stat -c %b sparse)" -lt 100 ]
truncate -s 5 sparse; [ "$(stat -c %s sparse)" = 5 ]
for n in 1 2 3; do echo "$n" >> log; done; [ "$(tr -d '\n' < log)" = 123 ]
fallocate -l 100K reserved; [ "$(stat -c %s reserved)" = 102400 ]
random_file "$WORK/random" 300000 holes; cp "$WORK/random" punched; fallocate -p -o 4096 -l 200000 punched
dd if=/dev/zero of="$WORK/random" bs=1 seek=4096 count=0 status=none conv=notrunc
head -c 200000 /dev/zero | dd of="$WORK/random" bs=4096 seek=1 conv=notrunc status=none iflag=fullblock
same "$WORK/random" punched
say "an unlinked open file lives on"
exec 9<> gone; echo alive >&9; rm gone; [ "$(cat /proc/self/fd/9)" = alive ]; exec 9>&-
say "extended attributes"
setfattr -n user.colour -v blue d/g; [ "$(getfattr --only-values -n user.colour d/g)" = blue ]
setfattr -x user.colour d/g; ! getfattr -n user.colour d/g 2>/dev/null || fail "a removed attribute"
say "large directory"
mkdir many; (cd many && seq 1 5000 | xargs touch); [ "$(ls many | wc -l)" = 5000 ]; [ "$(ls -l many | wc -l)" = 5001 ]; rm -r many; [ ! -e many ]
say "copy_file_range"
random_file "$WORK/source" 5000000 copy; cp "$WORK/source" source; cp --reflink=auto source target; same "$WORK/source" target
df . >/dev/null; [ "$(stat -f -c %S .)" = 4096 ]
cd /; remount
same "$WORK/source" "$mount/target"; [ "$(cat "$mount/d/hard")" = hello ]

say "a listing that takes longer than attributes are believed has every entry"
mkdir "$mount/many"
python3 - "$mount/many" <<'PY'
import os, sys, time
base = sys.argv[1]
names = {f"f{number}" for number in range(3000)}
for name in names:
    os.close(os.open(f"{base}/{name}", os.O_CREAT))
seen = []
with os.scandir(base) as entries:
    for entry in entries:
        if len(seen) % 700 == 0:
            time.sleep(1.1)
        seen.append(entry.name)
        entry.stat()
assert len(seen) == len(set(seen)) and set(seen) == names, f"{len(seen)} of {len(names)} entries, {len(names - set(seen))} missing"
PY
refuses 5 "not supported" setfattr -n system.posix_acl_access -v x "$mount/many"
