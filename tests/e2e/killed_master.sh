# The master is killed again and again under a workload; the mounts go on by themselves, nothing that was acknowledged is lost,
# and nobody ever sees anything half done. FULL: twenty times.
source "$PROJECT/tests/e2e/lib.sh"
cluster_up --mount "$WORK/second"
rounds=8 workers=3
[ -z "${FULL:-}" ] || rounds=20
stop=$WORK/stop; mkdir "$mount/work"
python3 "$PROJECT/tests/e2e/workload.py" run "$mount/work" "$stop" "$workers" & worker=$!
python3 "$PROJECT/tests/e2e/workload.py" observe "$WORK/second/work" "$stop" & observer=$!
for round in $(seq "$rounds"); do
  sleep "0.$((RANDOM % 9))"; sleep 0.5
  victim=$(pid_of master); kill -9 "$victim"
  sleep "0.$((RANDOM % 9))"
  restart "$victim" > /dev/null
  kill -0 $worker || fail "the workload ended in round $round"
  kill -0 $observer || fail "the observer ended in round $round"
done
sleep 1; touch "$stop"
wait $worker || fail "the workload met an error or found something wrong"
wait $observer || fail "the observer met an error or saw something half done"
say "after a remount, and with caches dropped"
remount
python3 "$PROJECT/tests/e2e/workload.py" check "$mount/work" "$stop" "$workers"
eventually 15 healthy
