"""The edges of what a file system takes, each with the errno that Linux gives. Arguments: WHAT MOUNT [SECOND-MOUNT]."""
import ctypes, errno, fcntl, os, resource, struct, sys

what, mount = sys.argv[1:3]
libc = ctypes.CDLL(None, use_errno=True)


def fails(number, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except OSError as error:
        assert error.errno == number, f"{error} instead of {errno.errorcode[number]}: {call.__name__}{arguments}"
    else:
        raise AssertionError(f"it worked: {call.__name__}{arguments}")


def remove(below):
    """Directories, from the lowest up to the mount."""
    parts = below.split("/")
    for depth in range(len(parts), 0, -1):
        os.rmdir(mount + "/" + "/".join(parts[:depth]))


def names():
    second = sys.argv[3].encode()
    base = mount.encode() + b"/names"
    os.mkdir(base)
    odd = [b"\xff\xfe", b"\xc3\x28", b"new\nline", b"tab\t", b" ", b"-rf", b"\x01", b"\x7f", "é".encode(), "e\u0301".encode(), b"a" * 255, b"\xf0" * 255, b"..." , b"*", b"\\", b'"']
    for name in odd:
        os.close(os.open(base + b"/" + name, os.O_CREAT | os.O_EXCL, 0o644))
    assert sorted(os.listdir(base)) == sorted(odd)
    if os.path.samefile(mount, second):
        return
    assert sorted(os.listdir(second + b"/names")) == sorted(odd)
    os.symlink(b"\xff\n\xfe", base + b"/link")
    assert os.readlink(base + b"/link") == b"\xff\n\xfe"
    os.setxattr(base, b"user.\xff\xfe", b"\x00\xff")
    assert os.getxattr(base, b"user.\xff\xfe") == b"\x00\xff" and b"user.\xff\xfe" in map(os.fsencode, os.listxattr(base))
    fails(errno.ENAMETOOLONG, os.mkdir, base + b"/" + b"a" * 256)
    fails(errno.ENAMETOOLONG, os.rename, base + b"/*", base + b"/" + b"\xff" * 256)
    for name in odd + [b"link"]:
        os.unlink(base + b"/" + name)
    os.rmdir(base)


def attributes():
    path = f"{mount}/attributes"
    os.close(os.open(path, os.O_CREAT, 0o644))
    largest = b"v" * 65536
    os.setxattr(path, "user.large", largest)
    assert os.getxattr(path, "user.large") == largest
    fails(errno.E2BIG, os.setxattr, path, "user.large", largest + b"v")
    os.setxattr(path, "user." + "n" * 250, b"")
    assert os.getxattr(path, "user." + "n" * 250) == b""
    fails(errno.ERANGE, os.setxattr, path, "user." + "n" * 251, b"")
    fails(errno.EEXIST, os.setxattr, path, "user.large", b"", os.XATTR_CREATE)
    fails(errno.ENODATA, os.setxattr, path, "user.other", b"", os.XATTR_REPLACE)
    fails(errno.ENODATA, os.getxattr, path, "user.other")
    fails(errno.ENODATA, os.removexattr, path, "user.other")
    fails(errno.EOPNOTSUPP, os.setxattr, path, "system.other", b"")
    fails(errno.EOPNOTSUPP, os.setxattr, path, "nonsense", b"")
    buffer = ctypes.create_string_buffer(10)
    assert libc.getxattr(path.encode(), b"user.large", buffer, 10) == -1 and ctypes.get_errno() == errno.ERANGE
    assert libc.getxattr(path.encode(), b"user.large", None, 0) == 65536
    assert libc.listxattr(path.encode(), buffer, 10) == -1 and ctypes.get_errno() == errno.ERANGE
    os.symlink("attributes", f"{mount}/link")
    fails(errno.EPERM, os.setxattr, f"{mount}/link", "user.x", b"", follow_symlinks=False)
    os.setxattr(f"{mount}/link", "trusted.x", b"y", follow_symlinks=False)
    assert os.getxattr(f"{mount}/link", "trusted.x", follow_symlinks=False) == b"y"
    os.unlink(f"{mount}/link")
    # All names of a file must fit into one listing.
    count = 0
    try:
        for count in range(1000):
            os.setxattr(path, f"user.{count:0240}", b"")
        raise AssertionError("names without end")
    except OSError as error:
        assert error.errno == errno.ENOSPC and count > 200, (error, count)
    assert len(os.listxattr(path)) == count + 2
    os.unlink(path)


def offsets():
    end = 2**63 - 1
    fd = os.open(f"{mount}/offsets", os.O_RDWR | os.O_CREAT, 0o644)
    assert os.pwrite(fd, b"x", end - 1) == 1
    assert os.fstat(fd).st_size == end and os.pread(fd, 1, end - 1) == b"x"
    # Linux refuses what would end beyond 2^63 - 1 before a file system sees it.
    fails(errno.EINVAL, os.pread, fd, 9, end - 1)
    fails(errno.EINVAL, os.pwrite, fd, b"xy", end - 1)
    assert os.lseek(fd, 0, os.SEEK_DATA) > end - 10_000_000 and os.lseek(fd, 5, os.SEEK_HOLE) == 5
    fails(errno.ENXIO, os.lseek, fd, end, os.SEEK_DATA)
    os.fsync(fd)
    assert os.stat(f"{mount}/offsets").st_blocks < 1000
    os.ftruncate(fd, 0)
    os.ftruncate(fd, end)
    fails(errno.EINVAL, os.ftruncate, fd, -1)
    fails(errno.EFBIG, os.posix_fallocate, fd, end - 1, 2)
    fails(errno.EINVAL, os.posix_fallocate, fd, 0, 0)
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, end, 1, 0)
    fcntl.fcntl(fd, fcntl.F_SETLK, lock)
    fails(errno.EOVERFLOW, fcntl.fcntl, fd, fcntl.F_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, end, 2, 0))
    os.close(fd)
    os.truncate(f"{mount}/offsets", 10)
    os.unlink(f"{mount}/offsets")


def cycles():
    second = sys.argv[3]
    os.makedirs(f"{mount}/a/b/c")
    os.mkdir(f"{mount}/d")
    fails(errno.EINVAL, os.rename, f"{mount}/a", f"{mount}/a/b/c/a")
    fails(errno.ENOTEMPTY, os.rename, f"{mount}/a/b", f"{mount}/a")
    fails(errno.EXDEV, os.rename, f"{mount}/a", f"{second}/d/a") if not os.path.samefile(mount, second) else None
    # Two renames that are each right alone, from two mounts at once: only one of them can happen.
    for attempt in range(10):
        os.makedirs(f"{mount}/x/in"), os.makedirs(f"{mount}/y/in")
        child = os.fork()
        if child == 0:
            try:
                os.rename(f"{second}/y", f"{second}/x/in/y")
                os._exit(0)
            except OSError as error:
                os._exit(error.errno)
        try:
            os.rename(f"{mount}/x", f"{mount}/y/in/x")
            first = 0
        except OSError as error:
            first = error.errno
        other = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert (first == 0) != (other == 0), (first, other)
        assert {first, other} - {0} <= {errno.EINVAL, errno.ENOENT, errno.ENOTDIR}, (first, other)
        top = "y" if first == 0 else "x"
        below = "y/in/x/in" if first == 0 else "x/in/y/in"
        remove(below)
        assert not os.path.exists(f"{mount}/{top}")
    os.symlink("loop", f"{mount}/loop")
    fails(errno.ELOOP, os.stat, f"{mount}/loop")
    fails(errno.ELOOP, os.open, f"{mount}/loop", os.O_RDONLY)
    os.unlink(f"{mount}/loop")
    remove("d")
    remove("a/b/c")


def open_files():
    number = 10_000
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, number + 100), hard))
    os.mkdir(f"{mount}/open")
    files = []
    for at in range(min(hard - 100, number)):
        fd = os.open(f"{mount}/open/{at}", os.O_RDWR | os.O_CREAT, 0o600)
        os.write(fd, b"%d" % at)
        files.append(fd)
        if at % 2:
            os.unlink(f"{mount}/open/{at}")
    for at, fd in enumerate(files):
        assert os.pread(fd, 20, 0) == b"%d" % at
    assert len(os.listdir(f"{mount}/open")) == (len(files) + 1) // 2
    for fd in files:
        os.close(fd)
    for name in os.listdir(f"{mount}/open"):
        os.unlink(f"{mount}/open/{name}")
    os.rmdir(f"{mount}/open")


def locks():
    fd = os.open(f"{mount}/locks", os.O_RDWR | os.O_CREAT, 0o600)
    at = 0
    while True:
        fcntl.lockf(fd, fcntl.LOCK_EX, 1, at * 2)
        at += 1


{"names": names, "attributes": attributes, "offsets": offsets, "cycles": cycles, "open-files": open_files, "locks": locks}[what]()
