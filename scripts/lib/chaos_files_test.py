"""Would the check of scripts/chaos notice? Run: python3 -m unittest discover -s scripts/lib -p '*_test.py'"""

import unittest

from chaos_files import BLOCK, HOLE, Tree, content


def bytes_of(*generations, length=BLOCK):
    return b"".join(content("s", generation, block) for block, generation in enumerate(generations))[:(len(generations) - 1) * BLOCK + length]


def tree(*steps, unknown=()):
    made = Tree("s")
    for step in steps:
        made.begin(*step)
        made.done(*step)
    for step in unknown:
        made.begin(*step)
    return made


MADE = [("create", "f"), ("write", "f", 0, 2 * BLOCK, 1), ("close", "f")]


class WhatMayBe(unittest.TestCase):
    def right(self, made, name, *states):
        for state in states:
            self.assertIsNone(made.wrong(name, state))

    def wrong(self, made, name, *states):
        for state in states:
            self.assertIsNotNone(made.wrong(name, state))

    def test_what_was_closed_is_there_whole(self):
        made = tree(*MADE)
        self.right(made, "f", bytes_of(1, 1))
        self.wrong(made, "f", None, b"", bytes_of(1), bytes_of(1, 1)[:-1], bytes_of(1, HOLE), bytes_of(1, 2), bytes_of(1, 1, 1))

    def test_what_was_synced_is_there_under_what_was_not(self):
        made = tree(*MADE[:2], ("fsync", "f"), ("write", "f", 1, 2 * BLOCK, 2))
        self.right(made, "f", bytes_of(1, 1), bytes_of(1, 2), bytes_of(1, 1, 2), bytes_of(1, 2, HOLE))
        self.wrong(made, "f", bytes_of(1), bytes_of(2, 1), bytes_of(1, HOLE), bytes_of(HOLE, 2), bytes_of(1, 2, 2, 2))

    def test_a_file_that_was_not_acknowledged_may_be_missing(self):
        made = tree(unknown=MADE[:1])
        self.right(made, "f", None, b"")
        self.wrong(made, "f", b"x")

    def test_shortened_files_stay_short(self):
        cut = ("truncate", "f", BLOCK)
        self.right(tree(*MADE, cut), "f", bytes_of(1))
        self.wrong(tree(*MADE, cut), "f", bytes_of(1, 1), b"")
        self.right(tree(*MADE, unknown=[cut]), "f", bytes_of(1), bytes_of(1, 1))
        self.wrong(tree(*MADE, unknown=[cut]), "f", b"", bytes_of(1, HOLE))

    def test_deleted_files_stay_deleted(self):
        gone = ("unlink", "f")
        self.right(tree(*MADE, gone), "f", None)
        self.wrong(tree(*MADE, gone), "f", bytes_of(1, 1))
        self.right(tree(*MADE, unknown=[gone]), "f", None, bytes_of(1, 1))

    def test_a_rename_is_done_or_not(self):
        old, new = bytes_of(1, 1), bytes_of(7)
        steps = [*MADE, ("create", "t"), ("write", "t", 0, BLOCK, 7), ("close", "t")]
        over = ("rename", "t", "f")
        self.right(tree(*steps, over), "f", new)
        self.wrong(tree(*steps, over), "f", old, None)
        self.wrong(tree(*steps, over), "t", new)
        made = tree(*steps, unknown=[over])
        self.right(made, "f", old, new)
        for found, half in [({"t": new, "f": old}, False), ({"t": None, "f": new}, False), ({"t": None, "f": old}, True), ({"t": None, "f": None}, True)]:
            self.assertEqual(bool(list(made.half_renamed(found))), half, found)
        made = tree(*MADE, unknown=[("rename", "f", "g")])
        self.right(made, "g", None, old)
        for found, half in [({"f": old, "g": None}, False), ({"f": None, "g": old}, False), ({"f": old, "g": old}, True)]:
            self.assertEqual(bool(list(made.half_renamed(found))), half, found)


if __name__ == "__main__":
    unittest.main()
