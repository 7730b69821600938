# The examples of docs/semantics.md, as they stand there: each is a shell script whose every line must succeed.
source "$PROJECT/tests/e2e/lib.sh"
chmod 755 "$WORK"  # for others than root, who come in there, too
cluster_up --mount "$WORK/two" --mount "$WORK/three"
python3 - "$PROJECT/docs/semantics.md" "$mount" "$WORK" <<'END'
import re
import subprocess
import sys

page, one, work = sys.argv[1:]
examples = re.findall(r"^```sh\n(.*?)^```$", open(page).read(), re.MULTILINE | re.DOTALL)
if len(examples) < 8:
    sys.exit(f"only {len(examples)} examples in {page}")
# The one that kills a mount comes last.
examples.sort(key=lambda example: "kill -9" in example)
for example in examples:
    script = example.replace("/mnt/one", one)
    for name in ("two", "three"):
        script = script.replace(f"/mnt/{name}", f"{work}/{name}")
    # From a file: the examples look for processes by their command line, and would find their own.
    path = f"{work}/example"
    with open(path, "w") as file:
        file.write('not() { if "$@"; then return 1; fi; }\n' + script)
    done = subprocess.run(["timeout", "60", "bash", "-euxo", "pipefail", path], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"this example of docs/semantics.md fails:\n{example}\n{done.stdout}{done.stderr}")
print(f"{len(examples)} examples hold")
END
