"""Trees for tests/e2e/objects.sh: make one, change it here and there, tell whether two are the same."""

import hashlib
import os
import random
import sys
from pathlib import Path

# In a test that runs in seconds, much shorter than the names suggest.
BIG = 5 << 20


def make(root, count):
    """Files of many sizes, symlinks, hard links, an empty directory, odd names, modes, times and extended attributes."""
    seeded = random.Random(5)
    root.mkdir()
    for number in range(count):
        folder = root / f"d{number % 37}" / f"e{number % 5}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"file {number} \N{LATIN SMALL LETTER E WITH ACUTE}"
        size = seeded.choice([0, 1, 100, 4096, 5000, 70_000 if number % 20 == 0 else 300])
        path.write_bytes(seeded.randbytes(size))
        path.chmod(seeded.choice([0o644, 0o600, 0o755, 0o444]))
        os.utime(path, ns=(0, seeded.randrange(10**18, 17 * 10**17)))
    (root / "big").write_bytes(seeded.randbytes(BIG + 12345))
    (root / "empty directory").mkdir()
    (root / "soft").symlink_to("d1/e1")
    (root / "dangling").symlink_to("nowhere/at all")
    os.utime(root / "dangling", ns=(0, 10**18 + 7), follow_symlinks=False)
    first = root / "d2" / "first"
    first.write_text("one file, three names")
    for name in ("d1/second", "z-third"):
        os.link(first, root / name)
    os.setxattr(root / "big", "user.colour", b"blue\0green")
    os.setxattr(root / "d3", "user.of a directory", b"1")
    for folder in sorted(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink()):
        os.utime(folder, ns=(0, seeded.randrange(10**18, 17 * 10**17)))
    (root / "d4").chmod(0o750)


def change(root):
    """Changes content, length, mode and time of a few, removes some, adds some. Prints how many files have to be copied, and how many removed."""
    files = sorted(path for path in root.rglob("file *"))
    seeded = random.Random(6)
    picked = seeded.sample(files, 14)
    for path in picked[:5]:
        path.chmod(0o644)
        path.write_bytes(path.read_bytes() + b"more")
    for path in picked[5:8]:
        path.chmod(0o640)
    for path in picked[8:12]:
        path.unlink()
    os.utime(picked[12], ns=(0, 10**18))
    (root / "new").write_text("new")
    (root / "soft").unlink()
    (root / "soft").symlink_to("d2/e2")
    # The time decides, and that of the thirteenth has changed; so five, that one, the new one, and the symlink.
    print(8, 4)


def description(root):
    """One line for each thing in a tree: all that `sync` promises to keep."""
    links, lines = {}, []
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(root))
        words = [name, oct(status.st_mode), status.st_mtime_ns]
        if path.is_symlink():
            words.append(os.readlink(path))
        elif path.is_file():
            words.append(hashlib.blake2b(path.read_bytes()).hexdigest())
            if status.st_nlink > 1:
                words.append(links.setdefault(status.st_ino, name))
        if not path.is_symlink():
            words += [(key, os.getxattr(path, key)) for key in sorted(os.listxattr(path)) if key.startswith("user.")]
        lines.append(words)
    return lines


def compare(one, other):
    mine, theirs = description(one), description(other)
    if mine == theirs:
        return 0
    for left, right in zip(mine, theirs):
        if left != right:
            print(f"differs:\n  {left}\n  {right}")
            break
    print(f"{len(mine)} and {len(theirs)} things")
    return 1


def main():
    verb, *words = sys.argv[1:]
    if verb == "make":
        make(Path(words[0]), int(words[1]))
    elif verb == "change":
        change(Path(words[0]))
    else:
        sys.exit(compare(Path(words[0]), Path(words[1])))


main()
