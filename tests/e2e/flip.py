"""Flips one bit in each of COUNT stored shards, of all chunkservers together, at random places in their records (docs/on-disk-format-chunkserver.md).

No chunk is hit in more than SPARES of its shards, for more would be lost by right. Prints how many shards of data and of parity were hit.
Usage: flip.py COUNT SPARES SEED CHUNKSERVER-DIRECTORY...
"""

import os
import random
import sys
from collections import Counter

PAGE = 4096
HEAD = 160
HASH = 32
SHARD = 1


def number(page, offset, size):
    return int.from_bytes(page[offset:offset + size], "little")


def shards(path):
    """(chunk, index, ranges of bytes that count) of each shard in a segment. What was deleted is a hole, and has no magic."""
    with open(path, "rb") as segment:
        size, at = os.fstat(segment.fileno()).st_size, PAGE
        while at < size:
            page = os.pread(segment.fileno(), PAGE, at)
            if page[:8] != b"CAIRNREC" or page[8] != SHARD:
                at += PAGE
                continue
            hashes = sum(number(page, offset, width) for offset, width in ((92, 2), (94, 2), (96, 4)))
            head, payload = HEAD + hashes * HASH, number(page, 88, 4)
            # docs: the payload follows directly if it all fits into one page, and starts on the next page otherwise.
            start = head if head + payload <= PAGE else -(-head // PAGE) * PAGE
            yield page[48:80], page[11], page[11] >= page[9], ((at, head), (at + start, payload))
            at += -(-(start + payload) // PAGE) * PAGE


def main():
    count, spares, seed, directories = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    dice = random.Random(seed)
    found = []
    for directory in sorted(directories):
        segments = os.path.join(directory, "segments")
        for name in sorted(os.listdir(segments)):
            path = os.path.join(segments, name)
            found += [(path, chunk, parity, ranges) for chunk, _, parity, ranges in shards(path)]
    # Every byte is as likely as any other.
    dice.shuffle(found)
    found.sort(key=lambda shard: dice.random() ** (1 / sum(length for _, length in shard[3])), reverse=True)
    hit, kinds = Counter(), Counter()
    for path, chunk, parity, ranges in found:
        if sum(kinds.values()) == count:
            break
        if hit[chunk] == spares:
            continue
        hit[chunk] += 1
        kinds["parity" if parity else "data"] += 1
        start, length = dice.choices(ranges, weights=[length for _, length in ranges])[0]
        at = start + dice.randrange(length)
        with open(path, "r+b", buffering=0) as segment:
            byte = os.pread(segment.fileno(), 1, at)[0]
            os.pwrite(segment.fileno(), bytes([byte ^ 1 << dice.randrange(8)]), at)
    if sum(kinds.values()) < count:
        sys.exit(f"only {sum(kinds.values())} shards could be hit")
    print(f"{kinds['data']} shards of data and {kinds['parity']} of parity")


if __name__ == "__main__":
    main()
