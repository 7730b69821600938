"""Real loss of power, for power_loss.sh: file systems that forget what was not synced, and a writer that says what was.

power.py cut DIRECTORY...             the file systems of these directories stop at once; nothing more reaches their devices
power.py write DIRECTORY JOURNAL      writes, syncs and renames until something fails; a line in JOURNAL for each acknowledged step
power.py check JOURNAL...   exits 1 if anything acknowledged is missing or wrong
"""

import fcntl
import hashlib
import os
import random
import struct
import sys

# FS_IOC_GOINGDOWN of Linux (include/uapi/linux/fs.h, ext4 and xfs); 2: not even the journal is written out.
GOING_DOWN, WITHOUT_LOG = 0x8004587D, 2


def cut(directories):
    for directory in directories:
        if not os.path.ismount(directory):
            sys.exit(f"{directory} is not the top of a file system: cutting it would hit others, too")
    descriptors = [os.open(directory, os.O_RDONLY | os.O_DIRECTORY) for directory in directories]
    for descriptor in descriptors:
        fcntl.ioctl(descriptor, GOING_DOWN, struct.pack("I", WITHOUT_LOG))


def write(directory, journal):
    number, log_bytes = 0, 0
    prefix = os.path.basename(journal)
    log = os.path.join(directory, f"{prefix}.log")
    with open(journal, "a", encoding="utf-8") as acknowledged:

        def note(*words):
            acknowledged.write(" ".join(map(str, words)) + "\n")
            acknowledged.flush()

        names = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        appended = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        while True:
            number += 1
            name, temporary = os.path.join(directory, f"{prefix}-{number}"), os.path.join(directory, f"{prefix}.new")
            content = os.urandom(random.choice([0, 100, 4096, 70_000, 1_500_000]))
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, name)
            os.fsync(names)
            note("file", name, hashlib.sha256(content).hexdigest())
            for _ in range(5):
                # Every byte of the log can be told from its place.
                os.write(appended, pattern(log_bytes, 4096))
                os.fsync(appended)
                log_bytes += 4096
                note("log", log, log_bytes)
            if number > 3 and random.random() < 0.3:
                victim = os.path.join(directory, f"{prefix}-{number - 3}")
                os.unlink(victim)
                os.fsync(names)
                note("gone", victim)


def pattern(start, length):
    return b"".join(struct.pack("<Q", at) for at in range(start // 8, (start + length) // 8))


def check(journals):
    files, gone, logs = {}, set(), {}
    for journal in journals:
        with open(journal, encoding="utf-8") as lines:
            for line in lines:
                kind, name, *rest = line.split()
                match kind:
                    case "file":
                        files[name] = rest[0]
                    case "gone":
                        gone.add(name)
                    case "log":
                        logs[name] = int(rest[0])
    wrong = []
    for name, digest in files.items():
        if name in gone:
            if os.path.lexists(name):
                wrong.append(f"{name} was deleted and is there again")
            continue
        try:
            with open(name, "rb") as file:
                if hashlib.sha256(file.read()).hexdigest() != digest:
                    wrong.append(f"{name} has other content than was synced")
        except FileNotFoundError:
            # The last step of a writer may have been to delete it.
            if name not in last_steps(journals):
                wrong.append(f"{name} is gone")
        except OSError as error:
            wrong.append(f"{name}: {error}")
    for name, length in logs.items():
        try:
            with open(name, "rb") as file:
                content = file.read()
        except OSError as error:
            wrong.append(f"{name}: {error}")
            continue
        if content[:length] != pattern(0, length):
            wrong.append(f"{name} does not hold the {length} bytes that were synced")
    print(f"{len(files)} files, {len(gone)} deletions, {sum(logs.values()) // 4096} synced records; {len(wrong)} wrong")
    print("\n".join(wrong))
    return not wrong


def last_steps(journals):
    """Files that a writer may have been deleting when it ended: the only ones that may be there or not."""
    under_way = set()
    for journal in journals:
        with open(journal, encoding="utf-8") as lines:
            made = [line.split()[1] for line in lines if line.startswith("file ")]
        under_way.update(made[-4:-3])
    return under_way


def main():
    match sys.argv[1:]:
        case ["cut", *directories]:
            cut(directories)
        case ["write", directory, journal]:
            try:
                write(directory, journal)
            except OSError:
                pass
        case ["check", *journals]:
            sys.exit(0 if check(journals) else 1)
        case _:
            sys.exit(__doc__)


main()
