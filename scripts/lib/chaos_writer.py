"""Writes, renames and deletes in a directory of its own until the stop file appears, and keeps a journal outside the cluster of what
was acknowledged (see chaos_files.py). Reads back, on its own mount and another, what must be there.

Usage: chaos_writer.py NUMBER SEED JOURNAL STOP-FILE MOUNT OTHER-MOUNT
"""

import json
import os
import random
import sys
import time

from chaos_files import BLOCK, Tree, content

FILES = 120  # kept at a time


class Writer:
    def __init__(self, number, seed, journal, stop, mount, other):
        self.dice = random.Random(f"{seed}/{number}")
        self.seed = f"{seed}/{number}"
        self.base, self.mount, self.other, self.stop = f"w{number}", mount, other, stop
        self.journal = open(journal, "w", encoding="utf-8", buffering=1)
        self.tree = Tree(self.seed)
        self.generation = 0
        self.usable = []  # names whose state is known
        self.known_since = {}
        self.note(seed=self.seed, base=self.base)

    # ---- the journal
    def note(self, **entry):
        self.journal.write(json.dumps(entry) + "\n")

    def step(self, act, op, name, *rest):
        """One operation: what it may change is journaled before, that it was acknowledged after."""
        self.tree.begin(op, name, *rest)
        self.note(begin=[op, name, *rest], at=time.time())
        result = act()
        self.tree.done(op, name, *rest)
        self.note(done=[op, name, *rest], at=time.time())
        if op not in ("create", "write"):
            os.fsync(self.journal.fileno())
        return result

    # ---- what it does
    def run(self):
        while not os.path.exists(self.stop):
            try:
                os.listdir(os.path.join(self.mount, self.base))
            except OSError:
                time.sleep(0.2)
                continue
            self.action()

    def action(self):
        kinds = [self.make] * 3 + [self.replace, self.replace, self.change, self.change, self.shorten, self.move, self.remove, self.read, self.read_other]
        if len(self.usable) > FILES:
            kinds = [self.remove]
        kind = self.dice.choice(kinds if self.usable else [self.make])
        begun = time.time()
        touched = []
        try:
            kind(touched)
        except OSError as error:
            # Nothing is known any more of what this was about; the check at the end accepts what may be.
            self.usable = [name for name in self.usable if name not in touched]
            self.note(failed=kind.__name__, names=touched, error=str(error), errno=error.errno, since=begun, at=time.time(), mount=self.mount)
            time.sleep(0.05)
        took = time.time() - begun
        if took > 1:
            self.note(slow=kind.__name__, names=touched, seconds=round(took, 2), since=begun)

    def path(self, name, mount=None):
        return os.path.join(mount or self.mount, self.base, name)

    def fresh(self):
        self.generation += 1
        return self.generation

    def length(self):
        """Mostly small, some of many blocks, a few of several chunks."""
        return self.dice.choices([self.dice.randint(1, 3000), self.dice.randint(1, 300_000), self.dice.randint(1_000_000, 9_000_000)], [60, 35, 5])[0]

    def settled(self, name):
        self.known_since[name] = time.time()
        if name not in self.usable:
            self.usable.append(name)

    def write(self, descriptor, name, first, length):
        generation = self.fresh()
        data = b"".join(content(self.seed, generation, first + block) for block in range(-(-length // BLOCK)))[:length]
        self.step(lambda: self.write_all(descriptor, data, first * BLOCK), "write", name, first, length, generation)

    @staticmethod
    def write_all(descriptor, data, at):
        while data:
            count = os.pwrite(descriptor, data, at)
            data, at = data[count:], at + count

    def created(self, name, touched):
        touched.append(name)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        return self.step(lambda: os.open(self.path(name), flags, 0o644), "create", name)

    def finish(self, descriptor, name, writes):
        """Writes, now and then an fsync between, and the close that must tell of any failure."""
        try:
            for first, length in writes:
                self.write(descriptor, name, first, length)
                if self.dice.random() < 0.3:
                    self.step(lambda: os.fsync(descriptor), "fsync", name)
                if self.dice.random() < 0.05:
                    time.sleep(self.dice.random() * 3)
        except OSError:
            try:
                os.close(descriptor)
            except OSError:
                pass
            raise
        self.step(lambda: os.close(descriptor), "close", name)

    def make(self, touched):
        name = f"d{self.dice.randrange(4)}/f{self.fresh()}"
        self.finish(self.created(name, touched), name, [(0, self.length())])
        self.settled(name)

    def replace(self, touched):
        """As editors do: a new file beside, renamed over the old one."""
        name = self.dice.choice(self.usable)
        beside = f"{name}.{self.fresh()}"
        touched.append(name)
        self.finish(self.created(beside, touched), beside, [(0, self.length())])
        self.step(lambda: os.rename(self.path(beside), self.path(name)), "rename", beside, name)
        self.settled(name)

    def change(self, touched):
        """Blocks in the midst are overwritten, or some are appended."""
        name = self.dice.choice(self.usable)
        touched.append(name)
        file = self.tree.file(name)
        whole, writes = file.size // BLOCK, []
        for _ in range(self.dice.randint(1, 6)):
            if file.size % BLOCK == 0 and self.dice.random() < 0.5 and not writes:
                writes.append((whole, self.length()))
            elif whole:
                first = self.dice.randrange(whole)
                writes.append((first, BLOCK * self.dice.randint(1, min(16, whole - first))))
        self.finish(os.open(self.path(name), os.O_WRONLY), name, writes)
        self.settled(name)

    def shorten(self, touched):
        name = self.dice.choice(self.usable)
        touched.append(name)
        size = BLOCK * self.dice.randint(0, self.tree.file(name).size // BLOCK)
        self.step(lambda: os.truncate(self.path(name), size), "truncate", name, size)
        self.settled(name)

    def move(self, touched):
        name, to = self.dice.choice(self.usable), f"d{self.dice.randrange(4)}/m{self.fresh()}"
        touched += [name, to]
        self.step(lambda: os.rename(self.path(name), self.path(to)), "rename", name, to)
        self.usable.remove(name)
        self.settled(to)

    def remove(self, touched):
        name = self.dice.choice(self.usable)
        touched.append(name)
        self.step(lambda: os.unlink(self.path(name)), "unlink", name)
        self.usable.remove(name)

    def read(self, touched, mount=None):
        name = self.dice.choice(self.usable)
        begun = time.time()
        # Another mount believes names for up to a second.
        if mount and begun - self.known_since[name] < 2.5:
            return
        try:
            with open(self.path(name, mount), "rb") as file:
                wrong = self.tree.wrong(name, file.read())
        except OSError as error:
            wrong = f"can't be read: {error}"
        if wrong:
            self.note(complaint=f"{name} {wrong}", since=begun, at=time.time(), mount=mount or self.mount)
        else:
            self.note(read=name)

    def read_other(self, touched):
        self.read(touched, self.other)


if __name__ == "__main__":
    Writer(int(sys.argv[1]), *sys.argv[2:]).run()
