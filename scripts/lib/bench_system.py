"""What scripts/bench measures: each system is a directory to work in, a way to drop its caches, and its processes; and fio on it."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, **options)


def drop_kernel_caches():
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


class System:
    name = "?"

    def cold(self):
        """Forgets everything that was cached, in the kernel and in the client."""
        drop_kernel_caches()

    def processes(self):
        """(role, pid) of each daemon."""
        return []

    def stop(self):
        pass


class Local(System):
    name = "local"

    def __init__(self, work):
        self.directory = work / "local"
        self.directory.mkdir()


class Cairn(System):
    name = "CairnFS 4+2"

    def __init__(self, work, chunkservers=6, master_options="", chunkserver_options="", mount_options=""):
        self.data, self.directory = work / "cluster", work / "mount"
        self.binary = os.environ.get("CAIRN_BIN", PROJECT / "target/release/cairn")
        options = {"MASTER_OPTIONS": master_options, "CHUNKSERVER_OPTIONS": chunkserver_options, "MOUNT_OPTIONS": mount_options}
        size = ("--chunkservers", chunkservers)
        run(PROJECT / "scripts/dev-cluster", "up", "--data", self.data, "--mount", self.directory, *size, env={**os.environ, **options})

    def listed(self):
        """(role, pid, directory) of each process."""
        lines = (line.split() for line in (self.data / "processes").read_text().splitlines())
        return [(role, int(pid), directory) for role, pid, directory in lines]

    def processes(self):
        return [(role, pid) for role, pid, _ in self.listed()]

    def forget(self, pid):
        """A process that will not come back."""
        path = self.data / "processes"
        path.write_text("".join(f"{role} {other} {directory}\n" for role, other, directory in self.listed() if other != pid))

    def cold(self):
        drop_kernel_caches()
        pid = next(pid for role, pid in self.processes() if role == "mount")
        # Unmounted, it ends its session: a killed one would seem to share the directories with the new one.
        run("fusermount3", "-u", self.directory)
        deadline = time.monotonic() + 60
        while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        run(PROJECT / "scripts/dev-cluster", "restart", "--data", self.data, pid, stdout=subprocess.DEVNULL)

    def stop(self):
        run(PROJECT / "scripts/dev-cluster", "down", "--data", self.data)


class Gluster(System):
    name = "Gluster 4+2"

    def __init__(self, work):
        if not shutil.which("glusterd"):
            run("apt-get", "update", "-qq")
            run("apt-get", "install", "-y", "-qq", "glusterfs-server", "glusterfs-client", stdout=subprocess.DEVNULL)
        self.host = subprocess.check_output(["hostname"], text=True).strip()
        self.bricks, self.directory = work / "bricks", work / "gluster"
        self.directory.mkdir()
        subprocess.run(["glusterd"], check=False)
        time.sleep(3)
        bricks = [f"{self.host}:{self.bricks}/{number}" for number in range(1, 7)]
        for number in range(1, 7):
            (self.bricks / str(number)).mkdir(parents=True)
        run("gluster", "--mode=script", "volume", "create", "cairnpeer", "disperse", 6, "redundancy", 2, *bricks, "force", stdout=subprocess.DEVNULL)
        run("gluster", "--mode=script", "volume", "start", "cairnpeer", stdout=subprocess.DEVNULL)
        self.mount()

    def mount(self):
        run("mount", "-t", "glusterfs", f"{self.host}:/cairnpeer", self.directory)

    def cold(self):
        run("umount", self.directory)
        drop_kernel_caches()
        self.mount()

    def processes(self):
        found = subprocess.run(["pgrep", "-x", "glusterfs|glusterfsd|glusterd"], capture_output=True, text=True).stdout.split()
        return [("gluster", int(pid)) for pid in found]

    def stop(self):
        subprocess.run(["umount", "-l", str(self.directory)], check=False)
        for verb in ("stop", "delete"):
            subprocess.run(["gluster", "--mode=script", "volume", verb, "cairnpeer"], stdout=subprocess.DEVNULL, check=False)
        subprocess.run(["pkill", "-x", "glusterd"], check=False)


def fio(directory, name, both=False, **options):
    """fio's figures of the side that the job exercises, or with `both` the sum of the two sides' IOPS."""
    job = {"directory": directory, "name": name, "output-format": "json", "group_reporting": 1, "fallocate": "none", **options}
    words = [f"--{key}={value}" for key, value in job.items()]
    output = subprocess.run(["fio", *words], check=True, capture_output=True, text=True).stdout
    result = json.loads(output[output.index("{"):])["jobs"][0]
    if both:
        return result["read"]["iops"] + result["write"]["iops"]
    side = "read" if "read" in options["rw"] else "write"
    return result[side]


def megabytes(result):
    return result["bw_bytes"] / (1 << 20)
