"""A workload whose every acknowledged step is known, run while things are killed, and the check that nothing of it is lost.

    workload.py run DIRECTORY STOP-FILE WORKERS   works in DIRECTORY/0, DIRECTORY/1, ... until STOP-FILE is there, then checks
    workload.py observe DIRECTORY STOP-FILE       reads everything again and again: each file must be whole
    workload.py check DIRECTORY STOP-FILE WORKERS compares with what `run` wrote down beside STOP-FILE

No operation may fail: what is killed comes back, and the mount waits for it.
"""

import errno
import json
import os
import random
import sys
import time
from pathlib import Path

NAMES = [f"name-{number}" for number in range(24)]
FOLDERS = [f"folder-{number}" for number in range(4)]
SIZES = [0, 1, 100, 4096, 5000, 70_000, 300_000, 2_000_000]


def content(seed, size):
    """Says in its first line what it must be."""
    return f"{seed} {size}\n".encode() + random.Random(seed).randbytes(size)


def is_whole(data):
    header = data.split(b"\n", 1)[0].split()
    return len(header) == 2 and data == content(int(header[0]), int(header[1]))


class World:
    """One directory, one worker, and what must be in it: name -> (seed, size), and the lines of a log."""

    def __init__(self, directory, seed):
        self.directory = Path(directory)
        self.random = random.Random(seed)
        self.files, self.folders, self.lines, self.steps = {}, set(), 0, 0
        self.next_seed = seed * 1_000_000

    def step(self):
        self.steps += 1
        action = self.random.choices([self.replace, self.move, self.remove, self.folder, self.log, self.look], [6, 3, 2, 2, 3, 4])[0]
        action()

    def path(self, name):
        return self.directory / name

    def sync_directory(self):
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(descriptor)
        os.close(descriptor)

    def replace(self):
        """The way editors save: a new file, renamed over the old one."""
        name, size = self.random.choice(NAMES), self.random.choice(SIZES)
        self.next_seed += 1
        with open(self.path("new"), "xb") as file:
            file.write(content(self.next_seed, size))
            if self.random.random() < 0.5:
                file.flush()
                os.fsync(file.fileno())
        os.rename(self.path("new"), self.path(name))
        if self.random.random() < 0.3:
            self.sync_directory()
        self.files[name] = (self.next_seed, size)

    def move(self):
        if self.files:
            source, target = self.random.choice(sorted(self.files)), self.random.choice(NAMES)
            os.rename(self.path(source), self.path(target))
            self.files[target] = self.files[source]
            if source != target:
                del self.files[source]

    def remove(self):
        if self.files:
            name = self.random.choice(sorted(self.files))
            os.unlink(self.path(name))
            del self.files[name]

    def folder(self):
        name = self.random.choice(FOLDERS)
        if name in self.folders:
            os.rmdir(self.path(name))
            self.folders.discard(name)
        else:
            os.mkdir(self.path(name))
            self.folders.add(name)

    def log(self):
        with open(self.path("log"), "ab") as file:
            file.write(b"line %d\n" % self.lines)
            file.flush()
            if self.random.random() < 0.7:
                os.fsync(file.fileno())
        self.lines += 1

    def look(self):
        if self.files:
            name = self.random.choice(sorted(self.files))
            self.compare(name)

    def compare(self, name):
        found = self.path(name).read_bytes()
        assert found == content(*self.files[name]), f"{self.path(name)} has {len(found)} bytes {found[:40]}, not those of {self.files[name]}"

    def check(self):
        wanted = set(self.files) | self.folders | ({"log"} if self.lines else set())
        found = set(os.listdir(self.directory))
        assert found == wanted, f"{self.directory}: lost {sorted(wanted - found)}, left over {sorted(found - wanted)}"
        for name in self.files:
            self.compare(name)
        log = b"".join(b"line %d\n" % number for number in range(self.lines))
        assert not self.lines or self.path("log").read_bytes() == log, f"{self.path('log')} is not as it was written"

    def save(self, file):
        Path(file).write_text(json.dumps({"files": self.files, "folders": sorted(self.folders), "lines": self.lines}))

    def load(self, file):
        saved = json.loads(Path(file).read_text())
        self.files = {name: tuple(value) for name, value in saved["files"].items()}
        self.folders, self.lines = set(saved["folders"]), saved["lines"]


def notes(stop, number):
    """Where a worker writes down what must be there: outside of what is tested."""
    return f"{stop}.world-{number}"


def work(directory, stop, number):
    world = World(Path(directory) / str(number), number + 1)
    world.directory.mkdir()
    longest = 0.0
    while not os.path.exists(stop):
        started = time.monotonic()
        world.step()
        longest = max(longest, time.monotonic() - started)
    world.check()
    world.save(notes(stop, number))
    print(f"worker {number}: {world.steps} steps, the longest took {longest:.1f} s", flush=True)


def run(directory, stop, workers):
    children = []
    for number in range(int(workers)):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                work(directory, stop, number)
                code = 0
            finally:
                if code:
                    import traceback
                    traceback.print_exc()
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    failed = [child for child in children if os.waitpid(child, 0)[1] != 0]
    sys.exit(1 if failed else 0)


def observe(directory, stop):
    seen = 0
    while not os.path.exists(stop):
        for folder in sorted(os.listdir(directory)):
            for name in NAMES:
                try:
                    data = (Path(directory) / folder / name).read_bytes()
                except OSError as error:
                    # It may be renamed or removed at any time; and a file that goes while it is read is stale.
                    assert error.errno in (errno.ENOENT, errno.ESTALE), f"{folder}/{name}: {error}"
                    continue
                assert is_whole(data), f"{folder}/{name} is half done: {len(data)} bytes, {data[:40]}"
                seen += 1
    print(f"the observer saw {seen} whole files", flush=True)
    assert seen > 0


def check(directory, stop, workers):
    for number in range(int(workers)):
        world = World(Path(directory) / str(number), number + 1)
        world.load(notes(stop, number))
        world.check()


if __name__ == "__main__":
    {"run": run, "observe": observe, "check": check}[sys.argv[1]](*sys.argv[2:])
