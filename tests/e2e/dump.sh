# A master's dump, loaded into an empty directory, serves the same tree with the same bytes; half a dump is none.
source "$PROJECT/tests/e2e/lib.sh"
cluster_up
address=$(cat "$cluster/master/address")
cp -a "$PROJECT/common" "$mount/tree"; mkdir -p "$mount/a/b"; echo kept > "$mount/a/b/f"; ln "$mount/a/b/f" "$mount/hard"; ln -s a/b/f "$mount/soft"
setfattr -n user.colour -v blue "$mount/hard"; truncate -s 3G "$mount/sparse"; random_file "$WORK/big" 20000000 dump; cp "$WORK/big" "$mount/big"
sync -f "$mount"
listing() { (cd "$mount" && find . -printf '%p %y %m %U %G %s %n %T@ %l\n' | sort); }
listing > "$WORK/before"
say "a running master is not dumped, and the attempt leaves nothing"
refuses 10 "in use" "$CAIRN" master --data "$cluster/master" dump "$WORK/dump"
[ ! -e "$WORK/dump" ] && [ ! -e "$WORK/dump.unfinished" ]
say "dump"
victim=$(pid_of master); kill -TERM "$victim"; eventually 15 stopped "$victim"
"$CAIRN" master --data "$cluster/master" dump "$WORK/dump"
refuses 10 "exists already" "$CAIRN" master --data "$cluster/master" dump "$WORK/dump"
"$CAIRN" master --data "$cluster/master" dump - | cmp - "$WORK/dump"
head -n 1 "$WORK/dump" | grep -q '"format":1,"what":"cairn master dump"'
[ "$(tail -n 1 "$WORK/dump" | sed 's/.*"rows":\([0-9]*\),.*/\1/')" = $(($(wc -l < "$WORK/dump") - 2)) ] || fail "the last line counts other rows"
say "load"
refuses 10 "already" "$CAIRN" master --data "$cluster/master" load "$WORK/dump"
mv "$cluster/master" "$cluster/master.old"
head -c 3000 "$WORK/dump" > "$WORK/torn"
refuses 10 "line" "$CAIRN" master --data "$cluster/master" load "$WORK/torn"
sed '5s/"v":"./"v":"B/' "$WORK/dump" > "$WORK/bent"
refuses 10 "damaged" "$CAIRN" master --data "$cluster/master" load "$WORK/bent"
"$CAIRN" master --data "$cluster/master" load "$WORK/dump"
refuses 10 "authority.cert is missing" "$CAIRN" master --data "$cluster/master" --listen "$address"
cp "$cluster"/master.old/authority.* "$cluster/master/"; echo "$address" > "$cluster/master/address"
restart "$victim" > /dev/null
say "the same tree with the same bytes"
listing | diff "$WORK/before" -
eventually 30 healthy
remount; listing | diff "$WORK/before" -
diff -r "$PROJECT/common" "$mount/tree"; same "$WORK/big" "$mount/big"; [ "$(getfattr --only-values -n user.colour "$mount/hard")" = blue ]
echo new > "$mount/new"; remount; [ "$(cat "$mount/new")" = new ]
