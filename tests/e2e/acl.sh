# POSIX access lists, enforced: named users and groups, masks, default lists and what inherits them, and what chmod has to do with it.
source "$PROJECT/tests/e2e/lib.sh"
cluster_up
cd "$mount"
as_user() { local user=$1; shift; setpriv --reuid "$user" --regid "$user" --clear-groups "$@"; }
as_member() { local groups=$1; shift; setpriv --reuid 1999 --regid 1999 --groups "$groups" "$@"; }
list() { getfacl --absolute-names --numeric --omit-header --no-effective "$1" | xargs; }
is() { local found; found=$(list "$1"); [ "$found" = "$2" ] || fail "$1 has \"$found\" instead of \"$2\""; }
mode() { stat -c %a "$1"; }

say "a named user and a named group, beside the mode"
echo secret > file; chmod 600 file; chmod 755 .
! as_user 1001 cat file 2>/dev/null || fail "the mode does not count"
setfacl -m u:1001:r,g:2002:rw file
[ "$(as_user 1001 cat file)" = secret ] || fail "a named user can't read"
! as_user 1001 sh -c 'echo x >> file' 2>/dev/null || fail "a named user can write"
as_member 5,2002 sh -c 'echo more >> file' || fail "a member of a named group can't write"
! as_member 5,2003 cat file 2>/dev/null || fail "a stranger can read"
is file "user::rw- user:1001:r-- group::--- group:2002:rw- mask::rw- other::---"
[ "$(mode file)" = 660 ] || fail "the mode is $(mode file)"
[ "$(getfattr -d -m - file 2>/dev/null | grep -c posix_acl_access)" = 1 ] || fail "it is not listed"

say "the mask limits, and chmod sets it"
chmod 640 file
is file "user::rw- user:1001:r-- group::--- group:2002:rw- mask::r-- other::---"
! as_member 2002 sh -c 'echo x >> file' 2>/dev/null || fail "the mask does not limit"
[ "$(as_member 2002 head -n 1 file)" = secret ] || fail "the mask takes too much"
setfacl -m m::rw file; [ "$(mode file)" = 660 ]; as_member 2002 sh -c 'echo x >> file'
setfacl -b file; is file "user::rw- group::--- other::---"
! as_user 1001 cat file 2>/dev/null || fail "a list that was removed still counts"

say "default lists are inherited, and the umask has no say"
mkdir dir; setfacl -m d:u:1001:rwx,d:g::rx,d:o::- dir
(umask 077; echo x > dir/file; mkdir dir/sub; mkfifo dir/fifo; ln -s nowhere dir/link)
[ "$(mode dir/file) $(mode dir/sub) $(mode dir/fifo)" = "660 770 660" ] || fail "modes $(mode dir/file) $(mode dir/sub) $(mode dir/fifo)"
chmod o+x dir
[ "$(as_user 1001 cat dir/file)" = x ] || fail "the default list was not inherited"
as_user 1001 touch dir/sub/below || fail "no entry may be made in the new directory"
getfacl --numeric --absolute-names dir/sub | grep -q '^default:user:1001:rwx' || fail "a directory passes nothing on"
setfacl -k dir; (umask 027; touch dir/masked); [ "$(mode dir/masked)" = 640 ]

say "only the owner changes a list, and a stranger to the group loses the set-group-id bit"
echo x > mine; chown 1001:2002 mine
! as_user 1002 setfacl -m u:1002:rw mine 2>/dev/null || fail "anybody gives himself rights"
chmod 2755 mine; as_user 1001 setfacl -m u:1002:r mine
[ "$(mode mine)" = 755 ] || fail "the bit stayed: $(mode mine)"
chmod 2755 mine; setpriv --reuid 1001 --regid 1001 --groups 2002 setfacl -m u:1003:r mine
[ "$(mode mine)" = 2755 ] || fail "a member of the group lost the bit: $(mode mine)"
! setfacl -m d:u:1:r mine 2>/dev/null || fail "a file took a default list"

say "lists survive a remount, cp -a, tar and rsync"
cd /; remount; cd "$mount"
setfacl -m u:1001:r file; cp -a file copy
mkdir back; tar --acls -cf - file dir | tar --acls -xf - -C back
mkdir back/rsync; rsync -aA file dir back/rsync/
for twin in copy back/file back/rsync/file; do [ "$(list file)" = "$(list $twin)" ] || fail "$twin has other rights"; done
[ "$(list dir/sub)" = "$(list back/dir/sub)" ] && [ "$(list dir/sub)" = "$(list back/rsync/dir/sub)" ] || fail "a directory has other rights"

say "many entries, and too many"
setfacl -m "$(seq -f 'u:%g:r' 3000 3400 | paste -sd,)" copy; [ "$(getfacl --absolute-names --numeric copy | grep -c '^user:3')" = 401 ]
[ "$(as_user 3200 head -n 1 copy)" = secret ] || fail "a user far down the list can't read"
! setfacl -m "$(seq -f 'u:%g:r' 4000 4300 | paste -sd,)" copy 2>/dev/null || fail "a list of 700 entries: Linux has room for 500 on FUSE"
