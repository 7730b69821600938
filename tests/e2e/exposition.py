"""Reads a page of metrics (standard input) as Prometheus does, strictly, and prints the sum of the samples named by the argument, if any.

A page is refused if a line can't be parsed, a family has no HELP and TYPE before its samples, samples of families are mixed, a sample comes twice, a
name does not suit its kind (counters end in _total, histograms in _seconds), or the buckets of a histogram are not cumulative and complete."""

import re
import sys

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"'
SAMPLE = re.compile(rf"^({NAME})(?:\{{((?:{LABEL})(?:,{LABEL})*)\}})? (NaN|[+-]Inf|[+-]?[0-9.]+(?:e[+-]?[0-9]+)?)$")


def family_of(name, kinds):
    for suffix in ("_bucket", "_sum", "_count"):
        base = name.removesuffix(suffix)
        if base != name and kinds.get(base) == "histogram":
            return base
    return name


def main():
    wanted = sys.argv[1] if len(sys.argv) > 1 else None
    text = sys.stdin.read()
    assert text.endswith("\n"), "the last line has no end"
    kinds, helps, samples, seen, current = {}, set(), [], set(), None
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, _, helped = line[7:].partition(" ")
            assert name not in helps and helped, line
            helps.add(name)
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert name in helps and name not in kinds and kind in ("counter", "gauge", "histogram"), line
            kinds[name], current = kind, name
        else:
            match = SAMPLE.match(line)
            assert match, f"not a sample: {line}"
            name, labels, value = match.group(1), match.group(2) or "", float(match.groups()[-1])
            assert family_of(name, kinds) == current, f"{line} belongs to another family than {current}"
            assert (name, labels) not in seen, f"twice: {line}"
            seen.add((name, labels))
            samples.append((name, dict(re.findall(LABEL, labels)), value))
    for name, kind in kinds.items():
        assert name.startswith("cairn_"), name
        assert kind != "counter" or name.endswith("_total"), name
        assert kind != "histogram" or name.endswith("_seconds"), name
        if kind == "histogram":
            check_histogram(name, samples)
    if wanted:
        found = [value for name, _, value in samples if name == wanted]
        assert found, f"there is no {wanted}"
        print(int(sum(found)) if float(sum(found)).is_integer() else sum(found))


def check_histogram(name, samples):
    series = {}
    for sample, labels, value in samples:
        if sample.startswith(name + "_"):
            key = tuple(sorted((label, text) for label, text in labels.items() if label != "le"))
            series.setdefault(key, {}).setdefault(sample.removeprefix(name + "_"), []).append((labels.get("le"), value))
    for key, parts in series.items():
        bounds = [float(bound) for bound, _ in parts["bucket"]]
        counts = [count for _, count in parts["bucket"]]
        assert bounds == sorted(bounds) and bounds[-1] == float("inf"), (name, key, bounds)
        assert counts == sorted(counts) and counts[-1] == parts["count"][0][1] and len(parts["sum"]) == 1, (name, key, counts)


main()
