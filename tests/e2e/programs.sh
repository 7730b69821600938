# Programs that people use, on the mount: git, a build, tar and rsync, sqlite, PostgreSQL, an editor's way of saving, overlayfs.
source "$PROJECT/tests/e2e/lib.sh"
source "$PROJECT/scripts/lib/install.sh"
install_packages acl attr gcc git make python3 rsync postgresql
cluster_up
cd "$mount"
export GIT_CONFIG_GLOBAL=$WORK/gitconfig GIT_CONFIG_NOSYSTEM=1
printf '[user]\n name = a\n email = a@b\n[gc]\n auto = 0\n' > "$GIT_CONFIG_GLOBAL"

say "git: a repository, a clone, gc and fsck"
mkdir source; cp -r "$PROJECT"/common "$PROJECT"/master "$PROJECT"/docs "$PROJECT"/scripts source/
(cd source && git init -q && git add . && git commit -qm one)
for round in 1 2 3; do (cd source && for f in $(git ls-files | awk "NR % 7 == $round"); do echo "// $round" >> "$f"; done; git commit -qam "round $round"); done
git clone -q --no-hardlinks source clone
(cd source && git branch -q other HEAD~2 && git gc -q --prune=now && git fsck --strict --no-progress)
(cd clone && git pull -q && git checkout -q -b work HEAD~1 && git merge -q --no-edit origin/HEAD && git fsck --strict --no-progress && git status --porcelain | wc -l | grep -qx 0)
[ "$(cd source && git ls-tree -r HEAD)" = "$(cd clone && git ls-tree -r HEAD)" ] || fail "the clone differs"

say "a build: many small sources, an archive, a program, and only what changed the second time"
mkdir build
(cd build
  for n in $(seq 40); do printf 'int f%d(int x) { return x + %d; }\n' "$n" "$n" > "f$n.c"; done
  { for n in $(seq 40); do echo "int f$n(int);"; done; echo '#include <stdio.h>'; echo 'int main(void) { int x = 0;'; for n in $(seq 40); do echo "x = f$n(x);"; done; echo 'printf("%d\n", x); return 0; }'; } > main.c
  printf 'objects := $(patsubst %%.c,%%.o,$(wildcard f*.c))\nprogram: main.o libf.a\n\t$(CC) -o $@ main.o -L. -lf\nlibf.a: $(objects)\n\tar rcs $@ $^\n' > Makefile
  make -s -j4 CC=cc && [ "$(./program)" = 820 ]
  make -s -q CC=cc || fail "make finds work where there is none"
  sleep 0.01; sed -i 's/x + 7/x + 8/' f7.c; make -j4 CC=cc > made; [ "$(grep -c -- '-c ' made)" = 1 ] && [ "$(./program)" = 821 ])

say "tar and rsync there and back, with links, owners, times, access lists, attributes and holes"
local_tree=$WORK/tree
mkdir -p "$local_tree/d/e"
(cd "$local_tree"
  random_file d/random 3000000 tree; ln d/random d/e/hard; ln -s ../random d/e/soft; ln -s nowhere dangling; mkfifo d/fifo
  truncate -s 50M d/sparse; printf end | dd of=d/sparse bs=1 seek=30000000 conv=notrunc status=none
  printf x > $'d/strange \xff\n name'; chmod 4751 d/random; chown 1234:2345 d/e; chmod 1777 d; touch -d '1999-12-31 23:59:59.987654321' d/e/hard
  setfattr -n user.comment -v hello d/random; setfattr -n user.empty d/e; setfattr -n trusted.note -v kept d/sparse
  for n in $(seq 300); do echo "$n" > "d/e/f$n"; done)
setfacl -m u:1001:r,g:2002:rw "$local_tree/d/random" 2>/dev/null && setfacl -m d:u:1001:rwx "$local_tree/d/e" || say "(the local file system has no access lists)"
# Of links and FIFOs rsync compares seconds: nothing is as old as what is made now.
find "$local_tree" -depth -exec touch -h -d '2001-09-09 01:46:40.123456789' {} +
compare() { # FROM TO
  local changes; changes=$(rsync -aHAXn --checksum --delete --itemize-changes "$1/" "$2/")
  [ -z "$changes" ] || fail "$1 and $2 differ: $changes"
}
rsync -aHAXS "$local_tree/" "$mount/rsynced/"; compare "$local_tree" "$mount/rsynced"
mkdir "$mount/untarred"; tar --acls --xattrs --xattrs-include='*' -C "$local_tree" -cSf - . | tar --acls --xattrs --xattrs-include='*' -C "$mount/untarred" -xpf -
compare "$local_tree" "$mount/untarred"
[ "$(stat -c %b "$mount/untarred/d/sparse")" -lt 2000 ] || fail "holes were filled"
[ "$(stat -c %h "$mount/untarred/d/random")" = 2 ] || fail "a hard link was lost"
mkdir "$WORK/back"; tar --acls --xattrs --xattrs-include='*' -C "$mount/rsynced" -cSf - . | tar --acls --xattrs --xattrs-include='*' -C "$WORK/back" -xpf -
compare "$local_tree" "$WORK/back"

say "find and ls see the same"
[ "$(find rsynced | wc -l)" = "$(find "$local_tree" | wc -l)" ]
[ "$(find rsynced -type f -size +1M | sort)" = "$(cd "$WORK" && find tree -type f -size +1M | sed 's/^tree/rsynced/' | sort)" ]
# The size of a directory means something else on each file system.
listing() { (cd "$1" && ls -lRn --time-style=full-iso . | grep -av '^total' | awk '/^d/ {$5 = ""} {$1 = $1} {print}'); }
diff <(listing "$local_tree") <(listing rsynced) || fail "ls -lR differs"

say "sqlite: both journals, several processes, one of them killed"
python3 -B "$PROJECT/tests/e2e/databases.py" "$mount/sqlite"

say "saving by rename: a reader sees the old text or the new one, whole"
python3 - "$mount/saved" <<'PY'
import os, sys, threading
path, texts, stop = sys.argv[1], [bytes([65 + n % 26]) * (20_000 + n) for n in range(60)], threading.Event()
def save(text):
    with open(path + ".swp", "wb") as new:
        new.write(text)
        new.flush()
        os.fsync(new.fileno())
    os.rename(path + ".swp", path)
save(texts[0])
wrong = []
def read():
    while not stop.is_set():
        with open(path, "rb") as file:
            text = file.read()
        if text not in texts:
            wrong.append(len(text))
reader = threading.Thread(target=read)
reader.start()
for text in texts:
    save(text)
stop.set()
reader.join()
assert not wrong, f"{len(wrong)} readings of a text that nobody wrote, of {wrong[:5]} bytes"
PY

say "overlayfs: the mount as a lower directory"
mkdir "$WORK/overlay" "$WORK/tmpfs"; mount -t tmpfs none "$WORK/tmpfs"; mkdir "$WORK/tmpfs/upper" "$WORK/tmpfs/work"
mount -t overlay overlay -o "lowerdir=$mount/rsynced,upperdir=$WORK/tmpfs/upper,workdir=$WORK/tmpfs/work" "$WORK/overlay"
(cd "$WORK/overlay"
  same d/random "$local_tree/d/random"; [ "$(getfattr --only-values -n user.comment d/random)" = hello ]
  echo more >> d/e/f7; rm d/e/f8; mv d/e/f9 d/e/g9; mkdir d/new; [ "$(ls d/e | wc -l)" = 301 ] && [ "$(tail -n 1 d/e/f7)" = more ])
umount "$WORK/overlay"; umount "$WORK/tmpfs"
[ "$(cat rsynced/d/e/f7)" = 7 ] && [ -e rsynced/d/e/f8 ] || fail "the lower directory was changed"

say "PostgreSQL: initdb, pgbench, kill -9, and all that was committed is there"
PATH=$(echo /usr/lib/postgresql/*/bin | tr ' ' '\n' | sort -V | tail -n 1):$PATH
chmod 755 "$WORK"; mkdir pg "$WORK/socket"; chown postgres pg "$WORK/socket"; chmod 700 pg
as_postgres() { (cd / && setpriv --reuid postgres --regid postgres --init-groups env PGHOST="$WORK/socket" PGDATABASE=postgres PATH="$PATH" "$@"); }
serve() { as_postgres pg_ctl -D "$mount/pg" -l "$WORK/socket/log" -w -t 60 -o "-k $WORK/socket -c listen_addresses= -c shared_buffers=16MB" start > /dev/null || { cat "$WORK/socket/log"; fail "PostgreSQL does not start"; }; }
as_postgres initdb -D "$mount/pg" --data-checksums > /dev/null
serve
as_postgres pgbench -q -i -s 1 2> /dev/null
as_postgres pgbench -c 4 -T "${FULL:+3}5" > "$WORK/bench" 2>&1 & bench=$!
sleep 3
postmaster=$(head -n 1 pg/postmaster.pid); kill -9 "$postmaster"; wait "$bench" || true
eventually 20 sh -c "! pgrep -u postgres -f '^postgres:'"
# Where nobody collects the dead, PostgreSQL takes the number of one for another server of its own.
eventually 20 stopped "$postmaster"; rm -f pg/postmaster.pid "$WORK"/socket/.s.PGSQL.*
serve
sums=$(as_postgres psql -At -c 'select (select sum(abalance) from pgbench_accounts) = (select sum(bbalance) from pgbench_branches), (select sum(bbalance) from pgbench_branches) = (select sum(delta) from pgbench_history), (select count(*) > 10 from pgbench_history)')
[ "$sums" = "t|t|t" ] || fail "the sums do not agree after the crash: $sums"
as_postgres pg_ctl -D "$mount/pg" -m fast -w stop > /dev/null
as_postgres pg_checksums --check -D "$mount/pg" > /dev/null || fail "checksums"
cd /
