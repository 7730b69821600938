# Power really goes: each role's data is on a file system of its own, which is stopped in the middle of everything and forgets what
# was not synced. Afterwards all that fsync acknowledged is there, byte for byte. FULL: thirty times.
source "$PROJECT/tests/e2e/lib.sh"
rounds=5; [ -z "${FULL:-}" ] || rounds=30
disks=(master chunkserver-{1..6})
disk() { echo "$cluster/$1"; }
plug_in() { for name in "${disks[@]}"; do mount -o loop "$WORK/$name.disk" "$(disk "$name")"; done; }
for name in "${disks[@]}"; do
  mkdir -p "$(disk "$name")"; truncate -s 2G "$WORK/$name.disk"; mkfs.ext4 -q "$WORK/$name.disk"
done
plug_in || { say "no loop devices here"; exit 77; }
for name in "${disks[@]}"; do rmdir "$(disk "$name")/lost+found"; done
cluster_up
for round in $(seq "$rounds"); do
  for writer in 1 2; do python3 "$PROJECT/tests/e2e/power.py" write "$mount" "$WORK/round-$round-$writer" & done
  sleep "$((1 + RANDOM % 2)).$((RANDOM % 10))"
  # Everybody, or the master and as many chunkservers as the scheme survives; the others are only killed.
  case $((round % 2)) in 1) cut=("${disks[@]}") ;; 0) cut=(master chunkserver-$((1 + RANDOM % 3)) chunkserver-$((4 + RANDOM % 3))) ;; esac
  python3 "$PROJECT/tests/e2e/power.py" cut $(for name in "${cut[@]}"; do disk "$name"; done)
  while read -r _ process _; do kill -9 "$process" 2> /dev/null || true; done < "$cluster/processes"
  umount -l "$mount"; wait
  for name in "${disks[@]}"; do eventually 10 umount "$(disk "$name")"; done
  plug_in
  cluster_up
  python3 "$PROJECT/tests/e2e/power.py" check "$WORK"/round-* || fail "what was synced is lost in round $round"
done
eventually 20 healthy
