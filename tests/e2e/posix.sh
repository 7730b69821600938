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
say "set-id bits go with the content or the owner that they stood for"
as_user() { setpriv --reuid 1234 --regid 1234 --clear-groups "$@"; }
bits_after() { # MODE COMMAND...   on a file with 6777
  local mode=$1 found; shift
  echo content > tool; chmod 6777 tool; [ "$(stat -c %a tool)" = 6777 ]
  "$@"; found=$(stat -c %a tool); [ "$found" = "$mode" ] || fail "mode $found after: $*"
}
bits_after 777 as_user sh -c 'printf x >> tool'
bits_after 777 as_user truncate -s 3 tool
bits_after 777 as_user sh -c ': > tool'
bits_after 777 as_user fallocate -l 1000 tool
bits_after 777 as_user sh -c 'cat /dev/null | dd of=tool conv=notrunc,fsync bs=1 count=0 seek=100 status=none; printf x | dd of=tool conv=notrunc bs=1 seek=2 status=none'
bits_after 777 chown 12:34 tool
bits_after 6777 sh -c 'printf x >> tool'
bits_after 6777 as_user cat tool > /dev/null
mkdir shared; chmod 2777 shared; chown :34 shared; [ "$(stat -c %a shared)" = 2777 ] || fail "a directory lost its set-group-id bit"
as_user touch shared/f; [ "$(stat -c %u:%g shared/f)" = 1234:34 ] || fail "the group is not inherited"
as_user mkdir shared/d; [ "$(stat -c %g:%a shared/d)" = 34:2755 ] || fail "the bit is not inherited: $(stat -c %g:%a shared/d)"
say "permissions"
mkdir -m 1777 sticky; echo mine > sticky/root; mkdir -m 700 closed; echo x > closed/f; echo secret > secret; chmod 600 secret
! as_user rm -f sticky/root 2>/dev/null || fail "removed another's file from a sticky directory"
! as_user mv sticky/root sticky/moved 2>/dev/null || fail "renamed another's file in a sticky directory"
! as_user cat closed/f 2>/dev/null || fail "searched a closed directory"
! as_user cat secret 2>/dev/null || fail "read a closed file"
! as_user chmod 777 secret 2>/dev/null || fail "changed another's mode"
! as_user chown 1234 secret 2>/dev/null || fail "took another's file"
! as_user mkdir d/new 2>/dev/null || fail "made a name in another's directory"
as_user sh -c 'umask 027; echo x > sticky/own; mkdir sticky/owndir; rm sticky/own; rmdir sticky/owndir'
(umask 027; touch masked; mkdir maskeddir; mkfifo maskedfifo); [ "$(stat -c %a masked maskeddir maskedfifo | tr '\n' ' ')" = "640 750 640 " ] || fail umask
say "errors that programs expect"
says() { # TEXT COMMAND...
  local text=$1 said; shift
  ! said=$(LC_ALL=C "$@" 2>&1) || fail "should have failed: $*"
  case "$said" in *"$text"*) ;; *) fail "said \"$said\" instead of \"$text\": $*" ;; esac
}
ln -s loop loop; ln -s nowhere dangling; mkdir full; touch full/f plain; mkdir empty
says "Too many levels of symbolic links" cat loop
says "Not a directory" cat plain/x
says "Is a directory" sh -c ': > full'
says "Is a directory" unlink full
says "Not a directory" rmdir plain
says "Directory not empty" rmdir full
says "Directory not empty" mv -T empty full
says "cannot overwrite" mv -T plain empty
says "No such file" cat dangling
says "File exists" ln plain full/f
says "not allowed" ln full hard
says "File exists" sh -c 'set -C; : > plain'
perl -MErrno=:POSIX -MFcntl -e '
  sub want { my ($what, $result, $errno) = @_; die "$what: ", $result ? "worked" : "errno " . ($! + 0), "\n" if $result || $! != $errno }
  want("rename into itself", rename("full", "full/inside"), EINVAL);
  want("rename a directory over a file", rename("empty", "plain"), ENOTDIR);
  want("rename a file over a directory", rename("plain", "empty"), EISDIR);
  want("rename what is not there", rename("absent", "plain"), ENOENT);
  want("remove the dot", rmdir("empty/."), EINVAL);
  want("a long name", mkdir("n" x 256), ENAMETOOLONG);
  want("a long symlink", symlink("t" x 4096, "long-link"), ENAMETOOLONG);
  want("an unnamed file", sysopen(my $file, ".", 020200000 | O_RDWR), EOPNOTSUPP);
  rename("plain", "plain") or die "rename onto itself: $!";
  link("plain", "twin") && rename("plain", "twin") or die "rename onto another name of the same file: $!";
  -e "plain" && -e "twin" or die "rename between two names of one file must leave both";
  symlink("t" x 4095, "long-link") or die "a symlink of 4095 bytes: $!";
' || fail "see above"
! cat appeared 2>/dev/null; echo x > appeared; [ "$(cat appeared)" = x ] || fail "a name that was not there, and is now"
say "reading sets the access time, once after each change"
atime() { stat -c %x "$1"; }
echo x > read; changed=$(stat -c '%y %z' read); made=$(atime read); sleep 0.05
cat read > /dev/null; first=$(atime read); [ "$first" != "$made" ] || fail "reading left no trace"
sleep 0.05; cat read > /dev/null; [ "$(atime read)" = "$first" ] || fail "a second reading set the time again"
[ "$(stat -c '%y %z' read)" = "$changed" ] || fail "reading changed another time"
sleep 0.05; echo y >> read; cat read > /dev/null; [ "$(atime read)" != "$first" ] || fail "a reading after a change left no trace"
touch -a -d '2001-01-01 UTC' read; [ "$(TZ=UTC stat -c %x read)" = "2001-01-01 00:00:00.000000000 +0000" ]
mkdir listed; made=$(atime listed); touch listed/f; ls listed > /dev/null; [ "$(atime listed)" != "$made" ] || fail "a listing left no trace"
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
