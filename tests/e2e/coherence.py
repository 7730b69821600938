"""Programs on several mounts of one file system at once: each sees what the others have finished.

Usage: coherence.py SECONDS MOUNT MOUNT...
       coherence.py held MOUNT          holds back what it has written until it is killed
Each case (or those that $CASES names) is run on all mounts, and prints a line. Exits with 1 if one failed.
"""

import fcntl
import mmap
import os
import struct
import sys
import threading
import time


class Wrong(Exception):
    """A promise was broken."""


def expect(condition, text):
    if not condition:
        raise Wrong(text)


def everywhere(mounts, name):
    return [os.path.join(mount, name) for mount in mounts]


def write(path, data, offset=0, flags=0):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o644)
    try:
        while data:
            done = os.pwrite(fd, data, offset)
            data, offset = data[done:], offset + done
    finally:
        os.close(fd)


def side_by_side(*works):
    """Runs functions in threads; the first failure is raised."""
    failures = []

    def guarded(work):
        try:
            work()
        except Exception as error:  # whatever it is, the test has failed
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def names(mounts, seconds):
    """Made, renamed, changed and removed here is at once so there."""
    end, number = time.time() + seconds, 0
    while time.time() < end:
        here, there = mounts[number % len(mounts)], mounts[(number + 1) % len(mounts)]
        name = f"name-{number % 5}"
        first, second = os.path.join(here, name), os.path.join(there, name)
        expect(not os.path.exists(second), f"{second} exists already")
        write(first, b"x" * number)
        expect(os.stat(second).st_size == number, f"{second} has {os.stat(second).st_size} bytes, not {number}")
        os.chmod(second, 0o600 + number % 8)
        expect(os.stat(first).st_mode & 0o777 == 0o600 + number % 8, f"the mode of {first}")
        os.rename(second, second + "-moved")
        expect(not os.path.exists(first), f"{first} was renamed")
        expect(name + "-moved" in os.listdir(here), f"a listing of {here} lacks {name}-moved")
        os.unlink(first + "-moved")
        expect(not os.path.exists(second + "-moved"), f"{second}-moved was removed")
        number += 1
    return f"{number} rounds"


def one_file(mounts, seconds):
    """Writes without a close are seen by the next read, size and time by the next stat, on descriptors that stay open."""
    paths = everywhere(mounts, "one-file")
    write(paths[0], b"")
    fds = [os.open(path, os.O_RDWR) for path in paths]
    end, number = time.time() + seconds, 0
    while time.time() < end:
        writer = number % len(fds)
        data = struct.pack("<Q", number) * 512
        offset = 4096 * (number % 50)
        os.pwrite(fds[writer], data, offset)
        size = max(os.fstat(fds[writer]).st_size, offset + 4096)
        for reader, fd in enumerate(fds):
            found = os.pread(fd, 4096, offset)
            expect(found == data, f"round {number}: mount {reader} reads {found[:8]!r}..., mount {writer} had written {data[:8]!r}")
            expect(os.fstat(fd).st_size == size, f"round {number}: mount {reader} has {os.fstat(fd).st_size} bytes, not {size}")
        times = {os.fstat(fd).st_mtime_ns for fd in fds}
        expect(len(times) == 1, f"round {number}: times differ: {times}")
        if number % 20 == 19:
            os.ftruncate(fds[writer], 100)
            sizes = [os.fstat(fd).st_size for fd in fds]
            expect(set(sizes) == {100}, f"round {number}: sizes after a truncation: {sizes}")
        number += 1
    for fd in fds:
        os.close(fd)
    return f"{number} writes"


def changed_modes(mounts, seconds):
    """A change of the mode, whose answer brings the new time of the file, does not make the pages of before look like new ones."""
    paths = everywhere(mounts, "changed-modes")
    write(paths[0], b"-" * 4096)
    fds = [os.open(path, os.O_RDWR) for path in paths]
    end, number = time.time() + seconds, 0
    while time.time() < end:
        writer = number % len(fds)
        reader = (number + 1) % len(fds)
        os.pread(fds[reader], 4096, 0)
        data = struct.pack("<Q", number) * 512
        os.pwrite(fds[writer], data, 0)
        os.fchmod(fds[reader], 0o600 + number % 64)
        found = os.pread(fds[reader], 4096, 0)
        expect(found == data, f"round {number}: mount {reader} reads {found[:8]!r}..., mount {writer} had written {data[:8]!r}")
        number += 1
    for fd in fds:
        os.close(fd)
    return f"{number} rounds"


def append_race(mounts, seconds):
    """Records appended on all mounts at once: none lost, none torn, none twice."""
    paths, counts, stop = everywhere(mounts, "append-race"), [0] * (2 * len(mounts)), time.time() + seconds
    write(paths[0], b"")

    def append(worker):
        fd = os.open(paths[worker % len(paths)], os.O_WRONLY | os.O_APPEND)
        while time.time() < stop:
            body = f"{worker}:{counts[worker]}:".encode()
            record = body + b"." * (99 - len(body)) + b"\n"
            expect(os.write(fd, record) == 100, "a short write")
            counts[worker] += 1
        os.close(fd)

    def watch():
        with open(paths[-1], "rb", buffering=0) as file:
            while time.time() < stop:
                content = os.pread(file.fileno(), 1 << 24, 0)
                expect(b"\0" not in content, f"zeros at {content.find(0)} of {len(content)}")
                time.sleep(0.02)

    side_by_side(*[lambda worker=worker: append(worker) for worker in range(len(counts))], watch)
    for path in paths:
        seen = [0] * len(counts)
        with open(path, "rb") as file:
            for line in file:
                expect(len(line) == 100, f"a torn record in {path}: {line!r}")
                worker, number, _ = line.split(b":", 2)
                expect(int(number) == seen[int(worker)], f"worker {worker!r} has {number!r} after {seen[int(worker)]} records in {path}")
                seen[int(worker)] += 1
        expect(seen == counts, f"{path} has {seen} records, written were {counts}")
    return f"{sum(counts)} records"


def expect_records(paths, size, counts):
    """Each of `paths` consists of records of `size` bytes, and has as many of each worker as `counts` says. A record is the byte of its worker, repeated."""
    for path in paths:
        seen = [0] * len(counts)
        with open(path, "rb") as file:
            while record := file.read(size):
                expect(record == record[:1] * size, f"a torn record before {file.tell()} in {path}")
                seen[record[0] - 1] += 1
        expect(seen == counts, f"{path} has {seen} records, written were {counts}")


def append_records(mounts, name, size, seconds, is_late):
    """All mounts append records. How many; late ones set O_APPEND only after the file is open."""
    paths, counts, stop = everywhere(mounts, name), [0] * len(mounts), time.time() + seconds
    write(paths[0], b"")

    def append(worker):
        fd = os.open(paths[worker], os.O_WRONLY | (0 if is_late else os.O_APPEND))
        if is_late:
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
        record = bytes([worker + 1]) * size
        while time.time() < stop:
            expect(os.write(fd, record) == size, "a short write")
            counts[worker] += 1
        os.close(fd)

    side_by_side(*[lambda worker=worker: append(worker) for worker in range(len(mounts))])
    expect_records(paths, size, counts)
    return f"{sum(counts)} records of {size} bytes"


def late_appenders(mounts, seconds):
    """O_APPEND counts when fcntl sets it, too."""
    return append_records(mounts, "late-appenders", 3000, seconds, True)


def long_records(mounts, seconds):
    """Records that the kernel hands over in pieces are not torn."""
    return append_records(mounts, "long-records", (5 << 20) // 2, seconds, False)


def create_race(mounts, seconds):
    """Of several exclusive creations, removals and renames of one name just one succeeds."""
    end, number = time.time() + seconds, 0
    while time.time() < end:
        name, won = f"race-{number}", []

        def create(mount, name=name, won=won):
            try:
                os.close(os.open(os.path.join(mount, name), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
                won.append(mount)
            except FileExistsError:
                pass

        side_by_side(*[lambda mount=mount: create(mount) for mount in mounts])
        expect(len(won) == 1, f"{name} was made {len(won)} times")
        lost = []

        def take(mount, name=name, lost=lost):
            try:
                if mount == mounts[0]:
                    os.rename(os.path.join(mount, name), os.path.join(mount, name + "-taken"))
                    os.unlink(os.path.join(mount, name + "-taken"))
                else:
                    os.unlink(os.path.join(mount, name))
                lost.append(mount)
            except FileNotFoundError:
                pass

        side_by_side(*[lambda mount=mount: take(mount) for mount in mounts])
        expect(len(lost) == 1, f"{name} was removed {len(lost)} times")
        number += 1
    return f"{number} races"


def directories_crosswise(mounts, seconds):
    """Creations and renames in and between two directories from all mounts at once: nobody waits for good."""
    for directory in ("cross-a", "cross-b"):
        os.mkdir(os.path.join(mounts[0], directory))
    stop, counts, slowest = time.time() + seconds, [0] * len(mounts), [0.0] * len(mounts)

    def work(place):
        mount = mounts[place]
        directories = ["cross-a", "cross-b"] if place % 2 == 0 else ["cross-b", "cross-a"]
        while time.time() < stop:
            begun = time.time()
            first, second = (os.path.join(mount, directory, f"{place}-{counts[place] % 7}") for directory in directories)
            write(first, b"abc")
            os.rename(first, second)
            expect(os.path.exists(second) and not os.path.exists(first), f"{first} was renamed to {second}")
            os.unlink(second)
            counts[place] += 1
            slowest[place] = max(slowest[place], time.time() - begun)

    side_by_side(*[lambda place=place: work(place) for place in range(len(mounts))])
    expect(max(slowest) < 10, f"a round took {max(slowest):.1f} s, as long as a client that does not answer is waited for")
    for mount in mounts:
        expect(not os.listdir(os.path.join(mount, "cross-a")) and not os.listdir(os.path.join(mount, "cross-b")), "they are empty again")
    return f"{sum(counts)} rounds, the slowest took {max(slowest) * 1000:.0f} ms"


def moved_directories(mounts, seconds):
    """A directory that another mount has moved is moved on, or replaced, by who has not looked at its new name."""
    for directory in ("moved-a", "moved-b", "moved-c"):
        os.mkdir(os.path.join(mounts[0], directory))
    end, number = time.time() + seconds, 0
    os.mkdir(os.path.join(mounts[0], "moved-a/x"))
    write(os.path.join(mounts[0], "moved-a/x/inside"), b"abc")
    for mount in mounts:
        os.stat(os.path.join(mount, "moved-a/x/inside"))
    place = "moved-a"
    while time.time() < end:
        mount, target = mounts[number % len(mounts)], "moved-" + "bcab"[number % 4]
        if target != place:
            os.rename(os.path.join(mount, place, "x"), os.path.join(mount, target, "x"))
            place = target
        if number % 5 == 0:
            # The same with the name that is replaced.
            other = mounts[(number + 1) % len(mounts)]
            os.makedirs(os.path.join(mount, "moved-a/full/one"))
            os.mkdir(os.path.join(mount, "moved-b/empty"))
            os.stat(os.path.join(other, "moved-a/full/one"))
            os.stat(os.path.join(other, "moved-b/empty"))
            os.rename(os.path.join(mount, "moved-b/empty"), os.path.join(mount, "moved-c/name"))
            os.rename(os.path.join(other, "moved-a/full"), os.path.join(other, "moved-c/name"))
            expect(os.listdir(os.path.join(mount, "moved-c/name")) == ["one"], f"round {number}: {other} has replaced moved-c/name")
            os.rmdir(os.path.join(mount, "moved-c/name/one"))
            os.rmdir(os.path.join(other, "moved-c/name"))
        number += 1
    for mount in mounts:
        with open(os.path.join(mount, place, "x/inside"), "rb") as file:
            expect(file.read() == b"abc", f"{mount}/{place}/x/inside")
    return f"{number} rounds"


def mappings(mounts, seconds):
    """What is stored through a shared mapping and synced is read elsewhere, through mappings, too."""
    paths = everywhere(mounts, "mapped")
    write(paths[0], bytes(8192))
    fds = [os.open(path, os.O_RDWR) for path in paths]
    maps = [mmap.mmap(fd, 8192) for fd in fds]
    end, number = time.time() + seconds, 0
    while time.time() < end:
        writer, data = number % len(maps), struct.pack("<Q", number + 1)
        maps[writer][4000:4008] = data
        maps[writer].flush()
        for reader, fd in enumerate(fds):
            expect(os.pread(fd, 8, 4000) == data, f"round {number}: mount {reader} does not read what mount {writer} had synced")
        for reader, mapped in enumerate(maps):
            deadline = time.time() + 1
            while mapped[4000:4008] != data and time.time() < deadline:
                time.sleep(0.01)
            expect(mapped[4000:4008] == data, f"round {number}: the mapping of mount {reader} lags by a second")
        number += 1
    for mapped, fd in zip(maps, fds):
        mapped.close()
        os.close(fd)
    return f"{number} rounds"


def mapped_by_all(mounts, seconds):
    """All mounts store through mappings of one file, in pages of their own, and sync at once: nobody waits for good, nothing is lost."""
    paths = everywhere(mounts, "mapped-by-all")
    write(paths[0], bytes(4096 * len(mounts)))
    fds = [os.open(path, os.O_RDWR) for path in paths]
    maps = [mmap.mmap(fd, 4096 * len(mounts)) for fd in fds]
    end, number, slowest = time.time() + seconds, 0, 0.0
    while time.time() < end:
        data = struct.pack("<Q", number + 1)
        for place, mapped in enumerate(maps):
            mapped[4096 * place:4096 * place + 8] = data
        begun = time.time()
        side_by_side(*[mapped.flush for mapped in maps])
        slowest = max(slowest, time.time() - begun)
        for reader, fd in enumerate(fds):
            for place in range(len(maps)):
                found = os.pread(fd, 8, 4096 * place)
                expect(found == data, f"round {number}: mount {reader} reads {found!r} where mount {place} had synced {data!r}")
        number += 1
    expect(slowest < 5, f"a sync took {slowest:.1f} s")
    for mapped, fd in zip(maps, fds):
        mapped.close()
        os.close(fd)
    return f"{number} rounds, the slowest sync took {slowest * 1000:.0f} ms"


def long_append(mounts, seconds):
    """Readers of a file that grows by large writes never see zeros where data was written."""
    paths, stop = everywhere(mounts, "long-append"), time.time() + seconds
    write(paths[0], b"")

    def grow():
        block = bytes([1 + number % 255 for number in range(300_000)])
        with open(paths[0], "ab", buffering=0) as file:
            while time.time() < stop:
                file.write(block)
                time.sleep(0.01)

    def watch(path):
        seen = 0
        with open(path, "rb", buffering=0) as file:
            while time.time() < stop:
                size = os.fstat(file.fileno()).st_size
                expect(size >= seen, f"it shrinks from {seen} to {size}")
                seen = size
                tail = os.pread(file.fileno(), 1 << 20, max(0, size - (1 << 20)))
                expect(len(tail) >= min(size, 1 << 20), f"{len(tail)} bytes at the end of {size}")
                expect(b"\0" not in tail, f"zeros near the end of {size} bytes")

    side_by_side(grow, *[lambda path=path: watch(path) for path in paths[1:]])
    return f"{os.stat(paths[-1]).st_size >> 20} MiB"


def filled_directory(mounts, seconds):
    """A directory is listed while others fill it: what was there before is listed, once."""
    os.mkdir(os.path.join(mounts[0], "filled"))
    stop, made = time.time() + seconds, [0] * (len(mounts) - 1)

    def fill(place):
        while time.time() < stop:
            write(os.path.join(mounts[place], "filled", f"{place}-{made[place]}"), b"y")
            made[place] += 1

    def watch():
        while time.time() < stop:
            before = list(made)
            listed = os.listdir(os.path.join(mounts[-1], "filled"))
            expect(len(listed) == len(set(listed)), "a name is listed twice")
            missing = [f"{place}-{number}" for place, count in enumerate(before) for number in range(count)]
            expect(set(missing) <= set(listed), f"{len(set(missing) - set(listed))} of {len(missing)} names are missing")

    side_by_side(*[lambda place=place: fill(place) for place in range(len(made))], watch)
    return f"{sum(made)} files"


CASES = [names, one_file, changed_modes, append_race, late_appenders, long_records, create_race, directories_crosswise, moved_directories, mappings, mapped_by_all, long_append, filled_directory]


def run(seconds, mounts):
    failed, wanted = 0, os.environ.get("CASES", "").split()
    for case in [case for case in CASES if not wanted or case.__name__ in wanted]:
        try:
            print(f"ok      {case.__name__:<22} {len(mounts)} mounts, {case(mounts, seconds)}", flush=True)
        except (Wrong, OSError) as error:
            failed += 1
            print(f"FAILED  {case.__name__:<22} {len(mounts)} mounts: {error}", flush=True)
    return failed


def held(mount):
    """Writes and closes nothing, until it is killed."""
    fd = os.open(os.path.join(mount, "held"), os.O_RDWR | os.O_CREAT, 0o644)
    os.write(fd, b"never closed")
    print("written", flush=True)
    time.sleep(1000)


if __name__ == "__main__":
    if sys.argv[1] == "held":
        held(sys.argv[2])
    else:
        sys.exit(1 if run(float(sys.argv[1]), sys.argv[2:]) else 0)
