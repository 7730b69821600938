"""The measurements of scripts/bench."""

import argparse
import io
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True
from bench_system import Cairn, Gluster, Local, fio, megabytes, run  # noqa: E402

FIO_SECONDS = 6


def per_second(count, work):
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def create_empty(name):
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))


class Bench:
    """One system under measurement. Every method returns (row, unit, value) triples."""

    def __init__(self, system, options):
        self.system, self.options = system, options
        self.directory = system.directory

    def sequential(self):
        size = f"{self.options.size_mib}m"
        target = {"filename": "sequential", "size": size, "bs": "1m", "ioengine": "psync"}
        write = fio(self.directory, "w", rw="write", end_fsync=1, **target)
        yield "sequential write 1 MiB, end_fsync", "MiB/s", megabytes(write)
        self.system.cold()
        yield "sequential read 1 MiB, cold", "MiB/s", megabytes(fio(self.directory, "r", rw="read", **target))
        # fio drops the kernel's pages of the file before it starts, unless told not to.
        yield "sequential read 1 MiB, only servers warm", "MiB/s", megabytes(fio(self.directory, "r", rw="read", **target))
        fio(self.directory, "r", rw="read", invalidate=0, **target)
        yield "sequential read 1 MiB, warm", "MiB/s", megabytes(fio(self.directory, "r", rw="read", invalidate=0, **target))

    def random_read(self):
        target = {"filename": "sequential", "size": f"{self.options.size_mib}m", "bs": "4k", "rw": "randread", "time_based": 1, "runtime": FIO_SECONDS}
        for row, extra in [
            ("random read 4 KiB, depth 1, cold", {"ioengine": "psync"}),
            ("random read 4 KiB, 4 jobs, cold", {"ioengine": "psync", "numjobs": 4}),
            ("random read 4 KiB, depth 16 direct", {"ioengine": "libaio", "iodepth": 16, "direct": 1}),
        ]:
            self.system.cold()
            yield row, "IOPS", fio(self.directory, "rr", **target, **extra)["iops"]
        self.system.cold()
        mixed = {**target, "rw": "randrw", "rwmixread": 70, "ioengine": "psync"}
        yield "random 70 % read 30 % write 4 KiB, cold", "IOPS", fio(self.directory, "rrw", both=True, **mixed)

    def random_write(self):
        target = {"filename": "random", "size": "256m", "bs": "4k", "rw": "randwrite", "ioengine": "psync"}
        yield "random write 4 KiB, end_fsync", "IOPS", self.write_rate({**target, "io_size": "64m", "end_fsync": 1})
        yield "random write 4 KiB, fsync=1", "IOPS", fio(self.directory, "rw", **target, fsync=1, time_based=1, runtime=FIO_SECONDS)["iops"]

    def write_rate(self, job):
        # fio does not count the final fsync in its rate: take the wall clock over all of it.
        fio(self.directory, "lay", rw="write", bs="1m", filename=job["filename"], size=job["size"], ioengine="psync", end_fsync=1)
        count = (64 << 20) // 4096
        return per_second(count, lambda: fio(self.directory, "rw", **job))

    def metadata(self):
        base, count = self.directory / "meta", self.options.files
        base.mkdir()
        names = [base / f"f{number}" for number in range(count)]
        yield "create", "files/s", per_second(count, lambda: [create_empty(name) for name in names])
        self.system.cold()
        yield "stat, cold", "files/s", per_second(count, lambda: [os.stat(name) for name in names])
        yield "stat, warm", "files/s", per_second(count, lambda: [os.stat(name) for name in names])
        self.system.cold()
        yield "ls -l, cold", "entries/s", per_second(count, lambda: run("ls", "-l", base, stdout=subprocess.DEVNULL))
        renamed = [base / f"r{number}" for number in range(count)]
        yield "rename", "files/s", per_second(count, lambda: [os.rename(old, new) for old, new in zip(names, renamed)])
        yield "unlink", "files/s", per_second(count, lambda: [os.unlink(name) for name in renamed])
        base.rmdir()

    def listing(self):
        """A tree of twice as many files, a hundred to a directory, listed again and again."""
        base, directories = self.directory / "listing", max(self.options.files // 50, 1)
        for number in range(directories):
            (base / f"d{number}").mkdir(parents=True)
            for name in range(100):
                create_empty(base / f"d{number}" / f"f{name}")
        listed = lambda: run("ls", "-lR", base, stdout=subprocess.DEVNULL)
        self.system.cold()
        yield "ls -lR, cold", "entries/s", per_second(100 * directories, listed)
        yield "ls -lR, warm", "entries/s", statistics.median(per_second(100 * directories, listed) for _ in range(3))
        shutil.rmtree(base)

    def metadata_of_four(self):
        """The same by four processes in one directory."""
        base, each = self.directory / "meta4", max(self.options.files // 4, 1)
        base.mkdir()

        def by_four(action):
            workers = []
            for worker in range(4):
                child = os.fork()
                if child == 0:
                    try:
                        for number in range(each):
                            action(f"{base}/w{worker}-{number}")
                    except BaseException:
                        os._exit(1)
                    os._exit(0)
                workers.append(child)
            if any(os.waitpid(worker, 0)[1] for worker in workers):
                raise RuntimeError("a process of the benchmark failed")

        yield "create, 4 processes", "files/s", per_second(4 * each, lambda: by_four(create_empty))
        self.system.cold()
        yield "stat, cold, 4 processes", "files/s", per_second(4 * each, lambda: by_four(os.stat))
        yield "stat, warm, 4 processes", "files/s", per_second(4 * each, lambda: by_four(os.stat))
        yield "rename, 4 processes", "files/s", per_second(4 * each, lambda: by_four(lambda name: os.rename(name, name + "r")))
        yield "unlink, 4 processes", "files/s", per_second(4 * each, lambda: by_four(lambda name: os.unlink(name + "r")))
        base.rmdir()

    def small_files(self):
        base, count = self.directory / "small", self.options.files
        base.mkdir()
        content = os.urandom(4096)

        def write(prefix, sync, number):
            descriptor = os.open(base / f"{prefix}{number}", os.O_CREAT | os.O_WRONLY)
            os.write(descriptor, content[number % 64:])
            if sync:
                os.fsync(descriptor)
            os.close(descriptor)

        def write_all():
            for number in range(count):
                write("a", False, number)
            os.sync()

        yield "4 KiB files written", "files/s", per_second(count, write_all)
        synced = max(count // 5, 1)
        yield "4 KiB files written, fsync each", "files/s", per_second(synced, lambda: [write("s", True, number) for number in range(synced)])
        self.system.cold()
        yield "4 KiB files read, cold", "files/s", per_second(count, lambda: [(base / f"a{number}").read_bytes() for number in range(count)])
        shutil.rmtree(base)

    def untar(self):
        archive = io.BytesIO()
        count = max(self.options.files // 2, 1)
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for number in range(count):
                info = tarfile.TarInfo(f"tree/{number % 97}/{number}.txt")
                info.size = 200 + (number * 7919) % 12000
                tar.addfile(info, io.BytesIO(os.urandom(info.size)))
        tar_file = Path(tempfile.gettempdir()) / f"cairn-bench-{os.getpid()}.tar"
        tar_file.write_bytes(archive.getvalue())
        base = self.directory / "untar"
        base.mkdir()
        try:
            yield "untar", "files/s", per_second(count, lambda: (run("tar", "xf", tar_file, "-C", base), os.sync()))
        finally:
            tar_file.unlink()
        self.system.cold()
        yield "tree walked (find -size), cold", "files/s", per_second(count, lambda: run("find", base, "-size", "+1M"))
        self.system.cold()
        yield "tree read (tar c), cold", "files/s", per_second(count, lambda: run("sh", "-c", 'tar cf - -C "$1" . | cat > /dev/null', "sh", base))
        yield "tree removed (rm -rf)", "files/s", per_second(count, lambda: run("rm", "-rf", base))

    def git(self):
        source = Path(tempfile.mkdtemp(prefix="cairn-bench-git-"))
        base = self.directory / "git"
        git = ["git", "-c", "user.name=bench", "-c", "user.email=bench@example.org", "-c", "gc.auto=0"]
        try:
            for number in range(3000):
                file = source / f"d{number % 60}" / f"f{number}.c"
                file.parent.mkdir(exist_ok=True)
                file.write_text(f"/* {number} */\n" * (number % 200 + 1))
            run(*git, "-C", source, "init", "-q")
            run(*git, "-C", source, "add", ".")
            run(*git, "-C", source, "commit", "-q", "-m", "bench")
            yield "git clone of 3,000 files", "clones/min", 60 * per_second(1, lambda: run(*git, "clone", "-q", f"file://{source}", base))
            self.system.cold()
            status = lambda: run(*git, "-C", base, "status", "--short")
            yield "git status, cold", "1/s", per_second(1, status)
            yield "git status, warm", "1/s", per_second(1, status)
        finally:
            shutil.rmtree(source)
            shutil.rmtree(base, ignore_errors=True)

    def sqlite(self):
        for mode in ("delete", "wal"):
            file = self.directory / f"bench-{mode}.db"
            database = sqlite3.connect(file, isolation_level=None)
            database.execute(f"pragma journal_mode = {mode}")
            database.execute("pragma synchronous = full")
            database.execute("create table t (number integer primary key, text text)")
            insert = lambda number: database.execute("insert into t values (?, ?)", (number, "x" * 100))
            yield f"sqlite commits, {mode}", "1/s", per_second(200, lambda: [insert(number) for number in range(200)])
            database.close()
            file.unlink()

    PARTS = {"sequential": sequential, "random_read": random_read, "random_write": random_write, "metadata": metadata, "listing": listing, "metadata_of_four": metadata_of_four, "small_files": small_files,
             "untar": untar, "git": git, "sqlite": sqlite}


def usage(system):
    """CPU seconds and peak resident memory per role, of the processes alive now."""
    roles = {}
    tick = os.sysconf("SC_CLK_TCK")
    for role, pid in system.processes():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            peak = next(int(line.split()[1]) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
        except (OSError, StopIteration):
            continue
        cpu, memory, count = roles.get(role, (0.0, 0, 0))
        roles[role] = (cpu + (int(fields[11]) + int(fields[12])) / tick, max(memory, peak // 1024), count + 1)
    return roles


def warm_memory():
    """The host backs memory at first touch only, and slowly: touch some before anything is measured."""
    block = bytearray(2 << 30)
    block[::4096] = b"x" * (len(block) // 4096)


def measure(system_class, options):
    work = Path(tempfile.mkdtemp(prefix="cairn-bench-"))
    values = {}
    system = None
    try:
        system = system_class(work)
        for number in range(options.runs):
            bench = Bench(system, options)
            for name, part in Bench.PARTS.items():
                if options.only and name not in options.only.split(","):
                    continue
                print(f"  {system.name}: {name}, run {number + 1} of {options.runs}", file=sys.stderr)
                for row, unit, value in part(bench):
                    values.setdefault((row, unit), []).append(value)
            for leftover in ("sequential", "random"):
                (system.directory / leftover).unlink(missing_ok=True)
        return {key: statistics.median(found) for key, found in values.items()}, usage(system), system.name
    finally:
        if system:
            system.stop()
        shutil.rmtree(work, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", default="")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--files", type=int, default=10000)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    warm_memory()
    ours, roles, name = measure(Cairn, options)
    peers = {"local": Local, "gluster": Gluster}
    theirs, _, peer_name = measure(peers[options.peer], options) if options.peer else ({}, {}, "")
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs, medians of {options.runs} run(s), {options.size_mib} MiB, {options.files} files")
    print(f"\n| row | unit | {name} |" + (f" {peer_name} | ratio |" if theirs else ""))
    print("|---|---|---|" + ("---|---|" if theirs else ""))
    for (row, unit), value in ours.items():
        line = f"| {row} | {unit} | {value:,.0f} |"
        if (row, unit) in theirs:
            peer = theirs[(row, unit)]
            line += f" {peer:,.0f} | {value / peer:.2f} |"
        print(line)
    print("\n| role | processes | CPU s | peak MiB of the largest |\n|---|---|---|---|")
    for role, (cpu, memory, count) in roles.items():
        print(f"| {role} | {count} | {cpu:.1f} | {memory} |")


main()
