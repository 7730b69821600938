"""The measurements of scripts/bench --repair: what it costs to be degraded, and how fast CairnFS becomes whole again."""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import shutil
from pathlib import Path

sys.dont_write_bytecode = True
from bench_system import Cairn, fio, megabytes, run  # noqa: E402

FIO_SECONDS = 6
DEAD_AFTER = 6
NEVER = "1h"
BEFORE_SECONDS = 40
SCRATCH_MIB = 64
HEALTHY_WITHIN = 900
SLOWNESS = 100


def microseconds(result, percentile):
    return result["clat_ns"]["percentile"][f"{percentile:.6f}"] / 1000


def at_places(seed):
    """fio's options for random places of their own: it takes no notice of a seed otherwise."""
    return {"randrepeat": 0, "randseed": seed}


def random_reads(system, seconds=FIO_SECONDS):
    """After a warm-up at other places, so that neither what the kernel nor what the mount has in memory answers."""
    system.cold()
    for seed, runtime in ((1, 3), (2, seconds)):
        found = fio(system.directory, "rr", filename="data", rw="randread", bs="4k", ioengine="psync", time_based=1, runtime=runtime, **at_places(seed))
    return found


def lay(system, size_mib):
    fio(system.directory, "lay", filename="data", rw="write", bs="1m", size=f"{size_mib}m", ioengine="psync", end_fsync=1)


def status(system):
    # It makes a connection, which takes some 10 ms of a processor: not from those who are measured.
    output = subprocess.run(["nice", "-n", "19", system.binary, "status", "--data", system.data / "master", "--json"], capture_output=True, text=True, check=True).stdout
    return json.loads(output)


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def chunkservers(system):
    return [(pid, directory) for role, pid, directory in system.listed() if role == "chunkserver"]


class Slow:
    """A process that gets a hundredth of its time: stopped, with short turns in between."""

    def __init__(self, pid, turn=0.0004):
        self.pid, self.turn, self.over = pid, turn, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.over.is_set():
            os.kill(self.pid, signal.SIGSTOP)
            self.over.wait(self.turn * (SLOWNESS - 1))
            os.kill(self.pid, signal.SIGCONT)
            time.sleep(self.turn)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        os.kill(self.pid, signal.SIGCONT)


def degraded(work, size_mib):
    """Reads with 0, 1 and 2 of six servers gone, and with one that is slow."""
    system = Cairn(work, master_options=f"--dead-after {NEVER}")
    try:
        lay(system, size_mib)
        healthy = None
        for missing in range(3):
            if missing:
                os.kill(chunkservers(system)[missing - 1][0], signal.SIGKILL)
                time.sleep(1)
            system.cold()
            sequential = megabytes(fio(system.directory, "r", filename="data", rw="read", bs="1m", ioengine="psync"))
            found = random_reads(system)
            healthy = healthy or (sequential, microseconds(found, 99))
            yield f"sequential read, {missing} shards missing", "MiB/s", sequential
            yield f"sequential read, {missing} shards missing, of the healthy one", "", sequential / healthy[0]
            yield f"random read 4 KiB, {missing} shards missing", "IOPS", found["iops"]
            yield f"random read 4 KiB, {missing} shards missing, p50", "us", microseconds(found, 50)
            yield f"random read 4 KiB, {missing} shards missing, p99", "us", microseconds(found, 99)
    finally:
        system.stop()


def slow_peer(work, size_mib):
    system = Cairn(work, master_options=f"--dead-after {NEVER}")
    try:
        lay(system, size_mib)
        before = random_reads(system)
        with Slow(chunkservers(system)[0][0]):
            after = random_reads(system)
        yield "random read 4 KiB, no server slow, p99", "us", microseconds(before, 99)
        yield f"random read 4 KiB, one server {SLOWNESS} times slower, p99", "us", microseconds(after, 99)
        yield "p99 with the slow server, of that without", "", microseconds(after, 99) / microseconds(before, 99)
    finally:
        system.stop()


class Foreground:
    """fio reading and writing until it is told to stop; percentiles of its reads, writes and fsyncs in microseconds. Each one reads at other places, so that what
    an earlier one has left in the mount's memory does not answer."""

    count = 0

    def __init__(self, directory):
        Foreground.count += 1
        places = [f"--{name}={value}" for name, value in at_places(Foreground.count).items()]
        job = ["--directory", directory, "--time_based", "--runtime", "1200", "--bs=4k", "--ioengine=psync", "--output-format=json", "--rate_iops=200"]
        job = [str(word) for word in (*job, *places)]
        reader = ["--name=reader", "--filename=data", "--rw=randread"]
        writer = ["--name=writer", "--filename=scratch", f"--size={SCRATCH_MIB}m", "--rw=randwrite", "--fsync=16"]
        self.fio = subprocess.Popen(["fio", *job, *reader, *writer], stdout=subprocess.PIPE, text=True)

    def finish(self):
        self.fio.send_signal(signal.SIGINT)
        output = self.fio.communicate()[0]
        reader, writer = json.loads(output[output.index("{"):])["jobs"]

        def percentiles(latency):
            return {name: latency["percentile"][f"{name:.6f}"] / 1000 for name in (50, 99)}

        return {"read": percentiles(reader["read"]["clat_ns"]), "write": percentiles(writer["write"]["clat_ns"]), "fsync": percentiles(writer["sync"]["lat_ns"])}


class Watched:
    """Asks for the cluster's status once a second, as an operator may, in each part of a measurement: that costs processor time, too."""

    def __init__(self, system):
        self.system, self.found, self.over = system, status(system), threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.over.wait(1):
            self.found = status(self.system)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def rebuild(work, size_mib):
    """One of eight servers dies with its disk while fio reads and writes. Mounts do not compact meanwhile: that has a pace of its own (scripts/bench says
    what it costs), and would fall into the longest part."""
    system = Cairn(
        work, chunkservers=8, master_options=f"--dead-after {DEAD_AFTER}s", chunkserver_options=os.environ.get("CHUNKSERVER_OPTIONS", ""),
        mount_options="--compaction-rate 0",
    )
    try:
        lay(system, size_mib)
        fio(system.directory, "scratch", filename="scratch", rw="write", bs="1m", size=f"{SCRATCH_MIB}m", ioengine="psync", end_fsync=1)
        with Watched(system) as watched:
            # The first one finds nothing in memory that speeds up all the others; and the first audits of what was written come to their end.
            for seconds in (20, BEFORE_SECONDS):
                foreground = Foreground(system.directory)
                time.sleep(seconds)
                before = foreground.finish()
            pid, directory = chunkservers(system)[0]
            lost = next(server for server in status(system)["chunkservers"] if server["labels"].get("host") == "c1")["used_bytes"]
            foreground = Foreground(system.directory)
            time.sleep(1)
            os.kill(pid, signal.SIGKILL)
            shutil.rmtree(directory)
            system.forget(pid)
            time.sleep(DEAD_AFTER - 1.5)
            lost_one = foreground.finish()
            foreground = Foreground(system.directory)
            begun = wait_until(lambda: is_under_repair(watched.found))
            spent = sum(cpu_seconds(other) for other, _ in chunkservers(system))
            ended = wait_until(lambda: is_whole(watched.found))
            spent = sum(cpu_seconds(other) for other, _ in chunkservers(system)) - spent
            during = foreground.finish()
        yield "rebuilt", "MiB", lost / (1 << 20)
        yield "rebuilt in", "s", ended - begun
        yield "rebuild rate", "MiB/s", lost / (1 << 20) / (ended - begun)
        yield "rebuild rate for each core the chunkservers were busy with", "MiB/s", lost / (1 << 20) / spent
        for call in ("read", "write", "fsync"):
            for name in (50, 99):
                yield f"{call}, p{name} before", "us", before[call][name]
                yield f"{call}, p{name} while the server is lost and not yet dead", "us", lost_one[call][name]
                yield f"{call}, p{name} during the rebuild", "us", during[call][name]
            yield f"{call}, p99 during the rebuild, of that before", "", during[call][99] / before[call][99]
    finally:
        system.stop()


def is_under_repair(found):
    return not found["healthy"] and found["repair"]["shards_left"] + found["repair"]["slots_left"] > 0


def is_whole(found):
    return found["healthy"] and found["repair"]["slots_left"] == 0


def wait_until(condition):
    end = time.time() + HEALTHY_WITHIN
    while not condition():
        if time.time() > end:
            raise SystemExit(f"not within {HEALTHY_WITHIN} s")
        time.sleep(0.1)
    return time.time()


def scrub(work, size_mib):
    """All that is stored, read and hashed as fast as it goes."""
    system = Cairn(work, chunkserver_options="--scrub-rate 100000")
    try:
        lay(system, size_mib)
        servers = chunkservers(system)

        def passes():
            found = []
            for _, directory in servers:
                try:
                    found.append(json.loads((Path(directory) / "scrub.json").read_text())["passes"])
                except FileNotFoundError:
                    found.append(0)
            return found

        first = passes()
        wait_until(lambda: all(now > then for now, then in zip(passes(), first)))
        first, spent, begun = passes(), sum(cpu_seconds(pid) for pid, _ in servers), time.time()
        wait_until(lambda: all(now >= then + 2 for now, then in zip(passes(), first)))
        seconds, spent = time.time() - begun, sum(cpu_seconds(pid) for pid, _ in servers) - spent
        read = sum(server["used_bytes"] for server in status(system)["chunkservers"]) * 2 / (1 << 20)
        yield "scrub, six servers together", "MiB/s", read / seconds
        yield "scrub, for each core that was busy", "MiB/s", read / spent
    finally:
        system.stop()


PARTS = {"degraded": degraded, "slow_peer": slow_peer, "rebuild": rebuild, "scrub": scrub}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    values = {}
    for number in range(options.runs):
        for name, part in PARTS.items():
            if options.only and name not in options.only.split(","):
                continue
            print(f"  {name}, run {number + 1} of {options.runs}", file=sys.stderr)
            work = Path(tempfile.mkdtemp(prefix="cairn-bench-"))
            try:
                for row, unit, value in part(work, options.size_mib):
                    values.setdefault((row, unit), []).append(value)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs, medians of {options.runs} run(s), {options.size_mib} MiB")
    print("\n| row | unit | value |\n|---|---|---|")
    for (row, unit), found in values.items():
        median = statistics.median(found)
        print(f"| {row} | {unit} | " + (f"{median:,.0f} |" if median >= 100 else f"{median:.2f} |"))


main()
