# Random system calls on one mount, and on two mounts of the same tree in turn, compared with a model of what Linux answers. FULL: more of them.
source "$PROJECT/tests/e2e/lib.sh"
model=$PROJECT/target/release/posix-model
[ -x "$model" ] || (cd "$PROJECT" && cargo build --release --locked -p cairn-tests --bin posix-model)
cluster_up --mount "$WORK/second"
cases=100; [ -z "$FULL" ] || cases=3000
mkdir "$WORK/local"
# Should this fail, the model is wrong about the machine's own file system.
say "a local directory"; "$model" --directory "$WORK/local" --cases "$cases" --seed 1
say "one mount";         "$model" --directory "$mount" --cases "$cases" --seed 2
say "two mounts";        "$model" --directory "$mount" --directory "$WORK/second" --cases "$cases" --seed 3
[ -z "$(ls -A "$mount")" ] || fail "something is left"
