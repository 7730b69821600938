# A mount that is alone lets the kernel list by itself what it knows, without a question to the process of the mount; and the change of another mount is seen all the same.
source "$PROJECT/tests/e2e/lib.sh"
MOUNT_OPTIONS="--metrics 0" cluster_up
page=$(sed -n 's|.*metrics are at \(http://[^ ]*\).*|\1|p' "$cluster/run/mount-1.log" | tail -n 1)
asked() { # the kernel, so often, for such things
  curl -s "$page" > "$WORK/page"
  awk '/^cairn_client_operation_seconds_count/ && /"(readdir|readdirplus|lookup|getattr|getxattr)"/ {sum += $2} END {print sum + 0}' "$WORK/page"
}
there=$WORK/there; mkdir "$there"
other() { "$CAIRN" mount --master "$(cat "$cluster/master/address")" --identity "$cluster/client-1" --background "$there" > /dev/null; }
trap '"$CAIRN" umount "$there" 2> /dev/null || true' EXIT

mkdir "$mount/listed"; (cd "$mount/listed" && touch $(seq 200))
say "the kernel lists by itself"
by_itself() { # in one of several tries, for it is told anew every second
  for _ in $(seq 20); do
    ls -l "$mount/listed" > "$WORK/first"; before=$(asked)
    ls -l "$mount/listed" > "$WORK/second"; after=$(asked)
    cmp "$WORK/first" "$WORK/second" || fail "two listings differ"
    # One question tells ls that there are no labels, and the walk to the directory may take some.
    [ $((after - before)) -gt 5 ] || return 0
  done
  fail "$((after - before)) questions for a listing"
}
by_itself
[ "$(wc -l < "$WORK/second")" = 201 ]

say "but not what another mount has changed, even if that puts back the time of the directory"
other
by_itself
perl -e '
  my ($path, $other, $time) = @ARGV;
  opendir(my $dir, $path) or die $!;
  my $first = grep { !/^\./ } readdir $dir;
  system("touch -r $other $time && touch $other/added && rm $other/7 && touch -r $time $other") == 0 or die "the other mount: $?\n";
  my ($here, $there) = map { (stat $_)[9] } $path, $time;
  die "the time is $here, not $there\n" unless $here == $there;
  rewinddir $dir;
  my %again = map { $_ => 1 } grep { !/^\./ } readdir $dir;
  die "an old listing\n" unless $first == 200 && keys %again == 200 && $again{added} && !$again{7};
' "$mount/listed" "$there/listed" "$WORK/time" || fail "see above"
[ -e "$mount/listed/added" ] && [ ! -e "$mount/listed/7" ] && [ "$(ls -l "$mount/listed" | wc -l)" = 201 ] || fail "old names"
touch "$mount/listed/mine"; [ "$(ls "$mount/listed" | wc -l)" = 201 ] && [ "$(ls "$there/listed" | wc -l)" = 201 ] || fail "old names"
