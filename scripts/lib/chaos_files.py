"""What a chaos writer's files may hold, given what was acknowledged.

A writer and the final check share this model: the writer tells it each step before it does it (`begin`) and after it was
acknowledged (`done`), and writes the same to its journal, from which the check builds the model again. What was begun and never
acknowledged stays unknown: either state is right, but nothing else.
"""

import hashlib
import json

BLOCK = 4096
HOLE = 0  # the generation of bytes nobody has written


def content(seed, generation, block, length=BLOCK):
    """The bytes that this generation of a writer has in this block of a file."""
    if generation == HOLE:
        return bytes(length)
    return hashlib.shake_128(f"{seed} {generation} {block}".encode()).digest(BLOCK)[:length]


class File:
    """Sizes and generations per block that a file may have; `settle` once everything written was acknowledged by fsync or close."""

    def __init__(self):
        self.low = self.high = self.size = 0
        self.blocks = []  # per block: the generations it may be of, the newest last

    def write(self, first, length, generation):
        end = first * BLOCK + length
        for block in range(first, -(-end // BLOCK)):
            while len(self.blocks) <= block:
                self.blocks.append([HOLE])
            self.blocks[block].append(generation)
        self.size = max(self.size, end)
        self.high = max(self.high, self.size)

    def settle(self):
        self.low = self.high = self.size
        self.blocks = [[may[-1]] for may in self.blocks]

    def shorten(self, size):
        """Truncation is under way: both sizes are right until `shortened`."""
        self.size = size
        self.low = min(self.low, size)

    def shortened(self):
        self.high = self.low = self.size
        del self.blocks[-(-self.size // BLOCK):]

    def definite(self):
        return self.low == self.high and all(len(may) == 1 for may in self.blocks)

    def wrong(self, seed, data):
        """Why this can't be the file's content; None if it can."""
        if not self.low <= len(data) <= self.high:
            return f"has {len(data)} bytes instead of {self.low}" + (f" to {self.high}" if self.high > self.low else "")
        for block in range(-(-len(data) // BLOCK)):
            piece = data[block * BLOCK:(block + 1) * BLOCK]
            if not any(piece == content(seed, generation, block, len(piece)) for generation in reversed(self.blocks[block])):
                what = "zeros" if not any(piece) else "something else"
                return f"block {block} (byte {block * BLOCK}) holds {what} instead of generation {self.blocks[block]}"
        return None


class Tree:
    """One writer's names. Each may stand for one of several things, of which None means that there is no such name."""

    def __init__(self, seed):
        self.seed = seed
        self.names = {}
        self.renames = []  # those not acknowledged: (from, to, file)

    def file(self, name):
        """The file of a name that is sure to be one."""
        return self.names[name][-1]

    def begin(self, op, name, *rest):
        if op == "create":
            self.names[name] = [None, File()]
        elif op == "write":
            self.file(name).write(*rest)
        elif op == "truncate":
            self.file(name).shorten(*rest)
        elif op == "unlink":
            self.names[name] = self.names[name] + [None]
        elif op == "rename":
            file, to = self.file(name), rest[0]
            self.renames.append((name, to, file))
            self.names[name] = [None, file]
            self.names[to] = self.names.get(to, [None]) + [file]

    def done(self, op, name, *rest):
        if op == "create":
            self.names[name] = [self.file(name)]
        elif op in ("fsync", "close"):
            self.file(name).settle()
        elif op == "truncate":
            self.file(name).shortened()
        elif op == "unlink":
            self.names[name] = [None]
        elif op == "rename":
            _, to, file = self.renames.pop()
            self.names[name], self.names[to] = [None], [file]

    def definite(self, name):
        may = self.names[name]
        return len(may) == 1 and may[0] is not None and may[0].definite()

    def wrong(self, name, data):
        """Why the name can't be in this state (None: absent, bytes: the content); None if it can."""
        reasons = []
        for may in self.names[name]:
            if may is None or data is None:
                reason = None if may is data else ("exists" if may is None else "does not exist")
            else:
                reason = may.wrong(self.seed, data)
            if reason is None:
                return None
            reasons.append(reason)
        return " / ".join(reasons)

    def half_renamed(self, found):
        """Renames that were neither done nor left undone. `found` has the content of each name, None if there is none."""
        for name, to, file in self.renames:
            replaced = any(may is not None and may is not file for may in self.names[to])
            if found[name] is not None and found[to] is not None and not replaced:
                yield f"{name} was to be renamed to {to}, and is there under both names"
            if found[name] is None and (found[to] is None or file.wrong(self.seed, found[to])):
                yield f"{name} was to be renamed to {to}, and is there under neither name"


def replay(path):
    """A journal's tree, and its other entries: complaints of the writer, failures, and what it counted."""
    entries = [json.loads(line) for line in open(path, encoding="utf-8")]
    tree, others, steps = Tree(entries[0]["seed"]), [], 0
    for entry in entries[1:]:
        if "begin" in entry:
            tree.begin(*entry["begin"])
        elif "done" in entry:
            tree.done(*entry["done"])
            steps += 1
        else:
            others.append(entry)
    return tree, others, steps
