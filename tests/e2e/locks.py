"""Locks of two mounts of one file system, or of two processes on one. Arguments: FIRST-MOUNT SECOND-MOUNT."""
import errno, fcntl, os, signal, struct, subprocess, sys, threading, time

A, B = sys.argv[1:3]
F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW = 36, 37, 38


def say(text):
    print("--", text, flush=True)


def path(mount, name="file"):
    return f"{mount}/{name}"


def opened(mount, name="file", flags=os.O_RDWR | os.O_CREAT):
    return os.open(path(mount, name), flags, 0o644)


def packed(kind, start=0, length=0):
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)


def denied(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        assert error.errno in (errno.EAGAIN, errno.EACCES), error
        return True
    return False


def flock(fd, mode):
    fcntl.flock(fd, mode)


def posix(fd, kind, start=0, length=0, command=fcntl.F_SETLK):
    return fcntl.fcntl(fd, command, packed(kind, start, length))


class Other:
    """A process of its own that does what it is told: lock, wait, die."""

    def __init__(self, body):
        self.ready, ready = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            signal.signal(signal.SIGALRM, lambda *_: None)
            signal.siginterrupt(signal.SIGALRM, True)
            code = 1
            try:
                code = body(lambda: os.write(ready, b"x")) or 0
            except OSError as error:
                code = error.errno
            finally:
                os._exit(code)
        os.close(ready)

    def wait_until_ready(self):
        assert os.read(self.ready, 1) == b"x", "it ended"
        return self

    def end(self):
        _, status = os.waitpid(self.pid, 0)
        os.close(self.ready)
        return os.waitstatus_to_exitcode(status)

    def kill(self, number=signal.SIGKILL):
        os.kill(self.pid, number)
        return self.end()


def holder(mount, lock, name="file"):
    def body(ready):
        fd = opened(mount, name)
        lock(fd)
        ready()
        time.sleep(60)
    return Other(body).wait_until_ready()


def exclusive(fd):
    flock(fd, fcntl.LOCK_EX)


def write_lock(fd):
    posix(fd, fcntl.F_WRLCK, command=fcntl.F_SETLKW)


a, b = opened(A), opened(B)

say("flock: exclusive and shared, on one mount and across two")
second = opened(A)
for other in (second, b):
    flock(a, fcntl.LOCK_EX)
    assert denied(flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB) and denied(flock, other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    flock(a, fcntl.LOCK_SH)
    flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert denied(flock, a, fcntl.LOCK_EX | fcntl.LOCK_NB)
    flock(other, fcntl.LOCK_UN)
    flock(a, fcntl.LOCK_EX | fcntl.LOCK_NB)
    flock(a, fcntl.LOCK_UN)
duplicate = os.dup(second)
flock(second, fcntl.LOCK_EX)
os.close(second)
assert denied(flock, b, fcntl.LOCK_SH | fcntl.LOCK_NB), "a duplicate still has it"
os.close(duplicate)
for attempt in range(100):
    fd = opened(A)
    flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)

say("fcntl: ranges, splitting, who is in the way")
posix(a, fcntl.F_WRLCK, 0, 100)
posix(a, fcntl.F_UNLCK, 40, 20)
posix(b, fcntl.F_WRLCK, 40, 20)
child = Other(lambda ready: 0 if denied(posix, opened(B), fcntl.F_RDLCK, 39, 1) and denied(posix, opened(B), fcntl.F_RDLCK, 60, 1) else 9)
assert child.end() == 0
seen = struct.unpack("hhqqi4x", fcntl.fcntl(b, fcntl.F_GETLK, packed(fcntl.F_WRLCK, 0, 0)))
assert (seen[0], seen[2], seen[3], seen[4]) == (fcntl.F_WRLCK, 0, 40, 0), seen


def ask_on_first(ready):
    seen = struct.unpack("hhqqi4x", fcntl.fcntl(opened(A), fcntl.F_GETLK, packed(fcntl.F_RDLCK, 70, 1)))
    return 0 if (seen[0], seen[2], seen[3], seen[4]) == (fcntl.F_WRLCK, 60, 40, os.getppid()) else 9


assert Other(ask_on_first).end() == 0, "the process on the same machine has a number"
posix(b, fcntl.F_UNLCK)

say("fcntl: a close of any descriptor ends the locks of the process")
reader = opened(A, flags=os.O_RDONLY)
os.close(reader)
posix(b, fcntl.F_WRLCK)
posix(b, fcntl.F_UNLCK)

say("fcntl of open files: kept by duplicates, ended by the last close")
ofd = opened(A)
fcntl.fcntl(ofd, F_OFD_SETLK, packed(fcntl.F_WRLCK))
assert denied(posix, a, fcntl.F_RDLCK) and denied(posix, b, fcntl.F_RDLCK)
again = opened(A)
os.close(again)
assert denied(posix, b, fcntl.F_RDLCK), "no process lock"
os.close(ofd)
posix(b, fcntl.F_RDLCK, command=fcntl.F_SETLKW)
posix(b, fcntl.F_UNLCK)

say("flock and fcntl do not see each other")
flock(a, fcntl.LOCK_EX)
posix(b, fcntl.F_WRLCK)
assert denied(flock, b, fcntl.LOCK_EX | fcntl.LOCK_NB)
posix(b, fcntl.F_UNLCK)
assert denied(flock, b, fcntl.LOCK_EX | fcntl.LOCK_NB)
flock(a, fcntl.LOCK_UN)

say("whoever waits gets it when it is let go of, or when its holder dies")
for lock, name in ((exclusive, "flock"), (write_lock, "fcntl")):
    for mounts in ((A, A), (A, B)):
        first = holder(mounts[0], lock)
        begun = time.monotonic()
        waiter = Other(lambda ready: lock(opened(mounts[1])))
        time.sleep(0.4)
        assert os.waitpid(waiter.pid, os.WNOHANG) == (0, 0), "it did not wait"
        first.kill()
        assert waiter.end() == 0
        assert time.monotonic() - begun < 3, f"{name} took {time.monotonic() - begun:.1f} s"

say("a signal ends a wait")
first = holder(A, write_lock)


# The C library's own call: Python's goes on after a signal.
interrupted = subprocess.run([sys.executable, "-c", f"""
import ctypes, errno, os, signal, struct, time
libc = ctypes.CDLL(None, use_errno=True)
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, True)
fd = os.open({path(B)!r}, os.O_RDWR)
signal.alarm(1)
begun = time.monotonic()
lock = ctypes.create_string_buffer(struct.pack("hhqqi4x", 1, 0, 0, 0, 0))
assert libc.fcntl(fd, 7, lock) == -1 and ctypes.get_errno() == errno.EINTR, ctypes.get_errno()
assert time.monotonic() - begun < 3, time.monotonic() - begun
"""])
assert interrupted.returncode == 0


def write_lock_waiting(ready):
    fd = opened(B)
    ready()
    write_lock(fd)


doomed = Other(write_lock_waiting).wait_until_ready()
time.sleep(0.5)
begun = time.monotonic()
assert doomed.kill() == -signal.SIGKILL and time.monotonic() - begun < 3
first.kill()
time.sleep(0.3)
posix(a, fcntl.F_WRLCK)
posix(a, fcntl.F_UNLCK)

say("a circle of waits")
posix(a, fcntl.F_WRLCK, 0, 1)


def circle(ready):
    fd = opened(B)
    posix(fd, fcntl.F_WRLCK, 1, 1)
    ready()
    posix(fd, fcntl.F_WRLCK, 0, 1, fcntl.F_SETLKW)


other = Other(circle).wait_until_ready()
time.sleep(0.5)
try:
    posix(a, fcntl.F_WRLCK, 1, 1, fcntl.F_SETLKW)
    raise AssertionError("no deadlock")
except OSError as error:
    assert error.errno == errno.EDEADLK, error
posix(a, fcntl.F_UNLCK)
assert other.end() == 0

say("a counter under a lock, by four processes on two mounts")
for lock in (exclusive, write_lock):
    os.pwrite(a, b"%08d" % 0, 0)
    os.fsync(a)

    def count(mount):
        def body(ready):
            for _ in range(25):
                fd = opened(mount)
                lock(fd)
                value = int(os.pread(fd, 8, 0))
                os.pwrite(fd, b"%08d" % (value + 1), 0)
                os.close(fd)
        return Other(body)

    counters = [count(mount) for mount in (A, B, A, B)]
    assert [counter.end() for counter in counters] == [0] * 4
    exclusive(b)
    total = int(os.pread(b, 8, 0))
    flock(b, fcntl.LOCK_UN)
    assert total == 100, f"{total} of 100 increments"
