"""The measurements of scripts/bench --cli: the commands for users' files, against the same files through the mount, on the same chunkservers."""

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True
from bench_system import Cairn, fio, megabytes, run  # noqa: E402

LISTED = 100_000
SETTLE_SECONDS = 3


def timed(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class Commands:
    def __init__(self, system, options, work):
        self.system, self.options, self.work, self.number = system, options, work, 0
        self.environment = {**os.environ, "CAIRN_IDENTITY": str(system.data / "client-1")}
        self.cairn("mb", "-p", "cairn://bench")
        self.directory = system.directory / "bench"

    def cairn(self, *words, **options):
        return run(self.system.binary, *words, env=self.environment, **options)

    def big(self):
        """Both sides begin and end on stable storage of the cluster; what is read is cold for clients and servers."""
        size = self.options.size_mib
        # Equal content would be stored once, and the second upload would be of what is there.
        other, source, back = self.work / "other", self.work / "big", self.work / "back"
        for path in (other, source):
            with path.open("wb") as file:
                for _ in range(size):
                    file.write(random.randbytes(1 << 20))
        job = {"filename": "fio", "size": f"{size}m", "bs": "1m", "ioengine": "psync"}
        ups = [
            ("fio into the mount, end_fsync", lambda: megabytes(fio(self.directory, "w", rw="write", end_fsync=1, **job))),
            ("cp into the mount, sync", lambda: size / timed(lambda: self.copy_and_sync(other, self.directory / "cp"))),
            ("cairn cp", lambda: size / timed(lambda: self.cairn("cp", "-q", source, "cairn://bench/big"))),
        ]
        downs = [
            ("fio from the mount, cold", lambda: megabytes(fio(self.directory, "r", rw="read", **job))),
            ("cp from the mount, cold", lambda: size / timed(lambda: run("cp", self.directory / "cp", self.work / "copied"))),
            ("cairn cp, cold", lambda: size / timed(lambda: self.cairn("cp", "-q", "cairn://bench/big", back))),
        ]
        # Each run begins with another one: the machine is not the same after gigabytes were written.
        for name, work in self.in_turn(ups):
            # A mount that was alone has let the kernel believe names of the directory for a second; the first creation by another client waits that out.
            run("sync")
            time.sleep(SETTLE_SECONDS)
            yield f"{size} MiB up: {name}", "MiB/s", work()
        for name, work in self.in_turn(downs):
            self.system.cold()
            time.sleep(SETTLE_SECONDS)
            yield f"{size} MiB down: {name}", "MiB/s", work()
        run("cmp", source, back)
        for path in (other, source, back, self.work / "copied", self.directory / "fio", self.directory / "cp", self.directory / "big"):
            path.unlink()

    def in_turn(self, works):
        first = self.number % len(works)
        return works[first:] + works[:first]

    @staticmethod
    def copy_and_sync(source, target):
        run("cp", source, target)
        run("sync", target)

    def small(self):
        count, tree = self.options.files, self.work / "small"
        for number in range(count):
            folder = tree / str(number // 500)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"f{number}").write_bytes(random.randbytes(4096))
        yield f"{count} files of 4 KiB up: cp -r into the mount", "s", timed(lambda: run("cp", "-r", tree, self.directory / "small-cp"))
        yield f"{count} files of 4 KiB up: cairn cp -r", "s", timed(lambda: self.cairn("cp", "-qr", tree, "cairn://bench/small"))
        self.system.cold()
        back = self.work / "small-back"
        yield f"{count} files of 4 KiB down: cp -r from the mount, cold", "s", timed(lambda: run("cp", "-r", self.directory / "small-cp", back))
        shutil.rmtree(back)
        self.system.cold()
        yield f"{count} files of 4 KiB down: cairn cp -r, cold", "s", timed(lambda: self.cairn("cp", "-qr", "cairn://bench/small", back))
        run("diff", "-r", tree, back)
        yield f"{count} files compared: cairn sync, nothing to do", "s", timed(lambda: self.cairn("sync", "-q", "--size-only", "--no-preserve", tree, "cairn://bench/small"))
        yield f"{count} files removed: rm -r in the mount", "s", timed(lambda: run("rm", "-r", self.directory / "small-cp"))
        yield f"{count} files removed: cairn rm -r", "s", timed(lambda: self.cairn("rm", "-rqy", "cairn://bench/small"))
        shutil.rmtree(tree)
        shutil.rmtree(back)

    def listing(self):
        """The first line and the last one, and the memory it took."""
        tree, count = self.work / "listed", LISTED
        tree.mkdir()
        for number in range(count):
            (tree / f"file-number-{number}").touch()
        self.cairn("cp", "-qr", tree, "cairn://bench/listed")
        shutil.rmtree(tree)
        for name, words in (("of 10 entries (what starting takes)", ["ls", "cairn://"]), (f"of {count} entries", ["ls", "cairn://bench/listed"])):
            started = time.perf_counter()
            listing = subprocess.Popen([str(self.system.binary), *words], env=self.environment, stdout=subprocess.PIPE)
            listing.stdout.readline()
            yield f"ls {name}: first line", "ms", 1000 * (time.perf_counter() - started)
            lines = sum(1 for _ in listing.stdout)
            _, status, usage = os.wait4(listing.pid, 0)
            if status != 0 or (count in words and lines + 1 != count):
                raise RuntimeError(f"ls ended with {status} after {lines} lines")
            yield f"ls {name}: all of it", "ms", 1000 * (time.perf_counter() - started)
            yield f"ls {name}: peak memory", "MiB", usage.ru_maxrss / 1024
        self.cairn("rm", "-rqy", "cairn://bench/listed")

    PARTS = {"big": big, "small": small, "listing": listing}


def measured(part, options, number):
    """On a cluster of its own: what earlier runs have removed would be collected meanwhile."""
    work, system = Path(tempfile.mkdtemp(prefix="cairn-bench-cli.")), None
    try:
        system = Cairn(work)
        commands = Commands(system, options, work)
        commands.number = number
        yield from part(commands)
    finally:
        if system:
            system.stop()
        shutil.rmtree(work, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--size-mib", type=int, default=2048)
    parser.add_argument("--files", type=int, default=10000)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    values = {}
    for number in range(options.runs):
        for name, part in Commands.PARTS.items():
            if options.only and name not in options.only.split(","):
                continue
            print(f"  {name}, run {number + 1} of {options.runs}", file=sys.stderr)
            for row, unit, value in measured(part, options, number):
                values.setdefault((row, unit), []).append(value)
                print(f"    {row}: {value:,.1f} {unit}", file=sys.stderr)
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, medians of {options.runs} run(s)\n")
    print("| row | unit | CairnFS 4+2 |\n|---|---|---|")
    for (row, unit), found in values.items():
        value = statistics.median(found)
        print(f"| {row} | {unit} | {value:,.{0 if value >= 100 else 1}f} |")


main()
