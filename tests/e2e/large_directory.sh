# A directory with many entries: listed while others make and remove entries in it, with places in the listing that stay what they are.
source "$PROJECT/tests/e2e/lib.sh"
second=$WORK/second
cluster_up --mount "$second"
number=20000
[ -z "$FULL" ] || number=1000000
mkdir "$mount/many"

say "making $number entries from two mounts"
make() { # MOUNT FIRST
  perl -e 'my ($dir, $first, $last) = @ARGV; for (my $n = $first; $n < $last; $n += 2) { open my $file, ">", "$dir/keep-$n" or die "$n: $!" }' "$1/many" "$2" "$number"
}
make "$mount" 0 & one=$!
make "$second" 1
wait "$one"
[ "$(ls -f "$second/many" | wc -l)" = $((number + 2)) ] || fail "entries are missing"
counted() { [ "$(stat -c %s "$mount/many")" = "$number" ]; }
eventually 5 counted

say "listing it while others come and go"
touch "$WORK/go"
churn() { # MOUNT: names that come and go, until told to stop
  perl -e 'my ($dir, $go, $me) = @ARGV; my $n = 0; while (-e $go) { my $name = "$dir/come-$me-" . $n++ % 500; if ($n % 3) { open my $file, ">", $name } else { unlink $name } }' "$1/many" "$WORK/go" "$2"
}
churn "$mount" a & churner_a=$!
churn "$second" b & churner_b=$!
perl -e '
  my ($path, $number) = @ARGV;
  opendir(my $dir, $path) or die $!;
  my (%seen, @places, $count);
  for (;;) {
    my $place = telldir $dir;
    my $name = readdir $dir;
    last unless defined $name;
    if ($name =~ /^keep-/) {
      die "$name came twice\n" if $seen{$name}++;
      push @places, [$place, $name] if ++$count % 997 == 0;
    }
  }
  die scalar(keys %seen), " of $number entries\n" unless keys %seen == $number;
  for my $visit (reverse(@places), @places) {
    my ($place, $name) = @$visit;
    seekdir $dir, $place;
    my $next;
    do { $next = readdir $dir } while defined $next && $next !~ /^keep-/;
    die "at the place of $name there is ", $next // "the end", "\n" unless defined $next && $next eq $name;
  }
  rewinddir $dir;
  my $again = grep { /^keep-/ } readdir $dir;
  die "$again of $number entries after rewinddir\n" unless $again == $number;
' "$mount/many" "$number" || fail "see above"

stop_churn() { [ -e "$WORK/go" ] || return 0; rm -f "$WORK/go"; wait "$churner_a" "$churner_b"; }
# Two mounts that change one directory in turn are slow: half a million removals beside them would take an hour.
[ -z "$FULL" ] || stop_churn
say "removing every other entry during a listing shows every entry that stays"
perl -e '
  my ($path, $number) = @ARGV;
  opendir(my $dir, $path) or die $!;
  my %seen;
  while (defined(my $name = readdir $dir)) {
    my ($n) = $name =~ /^keep-(\d+)$/ or next;
    $seen{$n}++;
    unlink "$path/$name" or die "$name: $!" if $n % 2;
  }
  for (my $n = 0; $n < $number; $n += 2) { die "keep-$n was shown ", $seen{$n} // 0, " times\n" unless ($seen{$n} // 0) == 1 }
' "$second/many" "$number" || fail "see above"
stop_churn
[ "$(ls -f "$mount/many" | grep -c '^keep-')" = $((number / 2)) ] || fail "after the removal there are $(ls -f "$mount/many" | grep -c '^keep-') entries"
rm -r "$mount/many"
[ ! -e "$mount/many" ]
