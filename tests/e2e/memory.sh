# The master's memory has a bound that is a setting, whatever the number of files. FULL: half a million.
source "$PROJECT/tests/e2e/lib.sh"
cluster_up
folders=20 files=1000 limit=120
[ -z "${FULL:-}" ] || folders=500
sed -i 's/--ready-file/--cache 16 --ready-file/' "$cluster/run/master.command"
restart "$(pid_of master)" > /dev/null
peak() { awk '/VmHWM/ {print int($2 / 1024)}' "/proc/$(pid_of master)/status"; }
say "making $((folders * files)) files"
python3 - "$mount" $folders $files <<'EOF'
import os, sys
root, folders, files = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
children = []
for part in range(4):
    children.append(os.fork())
    if children[-1] == 0:
        for folder in range(part, folders, 4):
            os.mkdir(f"{root}/{folder}")
            for name in range(files):
                os.close(os.open(f"{root}/{folder}/a-name-of-usual-length-{name}", os.O_CREAT | os.O_WRONLY))
        os._exit(0)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
EOF
say "the master had $(peak) MiB at its peak, its tables have $(du -m "$cluster/master/tables.redb" | cut -f1) MiB"
[ "$(peak)" -le $limit ] || fail "$(peak) MiB"
say "listing them all, cold"
remount; [ "$(find "$mount" -type f | wc -l)" = $((folders * files)) ]
[ "$(peak)" -le $limit ] || fail "$(peak) MiB after listing"
