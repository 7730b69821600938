# A real source tree goes in, and comes out byte for byte after a remount.
source "$PROJECT/tests/e2e/lib.sh"
cluster_up
say "copy"
mkdir "$mount/tree"
cp -a "$PROJECT/.git" "$mount/tree/git"
(cd "$PROJECT" && tar cf - --exclude=./target --exclude=./.git .) | tar xf - -C "$mount/tree"
registry=$(find "${CARGO_HOME:-$HOME/.cargo}/registry/src" -maxdepth 2 -name 'tokio-1*' | head -n 1)
[ -z "$registry" ] || cp -a "$registry" "$mount/tree/registry"
say "compare, before and after a remount"
compare() {
  diff -r "$PROJECT/.git" "$mount/tree/git"
  [ -z "$registry" ] || diff -r "$registry" "$mount/tree/registry"
  for path in common runtime master chunkserver client fuse-client cli tests scripts docs; do diff -r "$PROJECT/$path" "$mount/tree/$path"; done
}
compare
remount
compare
[ "$(find "$mount/tree" -printf '%m %U %s %T@ %p\n' | grep -vc '^$')" -gt 100 ] || fail "the tree is too small"
say "git works there"
git -C "$mount/tree" init -q . 2>/dev/null || true
git --git-dir "$mount/tree/git" fsck --no-dangling
rm -r "$mount/tree"
[ -z "$(ls -A "$mount")" ] || fail "something is left"
