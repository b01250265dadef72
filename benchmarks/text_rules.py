"""Precision and recall of the rules for privacy, refusals and preambles on labelled strings (tests/filters/text/labelled).

Each set has two halves, fixed by a hash of the string: rules are tuned on the first, the other is only measured. For privacy a
finding is right if its kind and its borders are those of the label.

    python -m benchmarks.text_rules            the tables of docs/filters/privacy.md and docs/filters/heuristics.md
    python -m benchmarks.text_rules --wrong    also the development half's errors; the held-out half's are not shown
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from helpers.labelled import HALVES, Counts, measure_phrases, measure_privacy


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wrong", action="store_true", help="show the errors of the development half")
    arguments = parser.parse_args()
    for title, measured in (("privacy", measure_privacy()), ("phrases", measure_phrases())):
        print(f"\n{title}: " + ", ".join(f"{measured.texts[half]} strings {half}" for half in HALVES) + "\n")
        print("| | " + " | ".join(f"{half}: labels | precision | recall" for half in HALVES) + " |")
        print("|---" * (1 + 3 * len(HALVES)) + "|")
        for name in measured.names:
            print(f"| `{name}` | " + " | ".join(cells(measured.counts[half, name]) for half in HALVES) + " |")
            if arguments.wrong:
                show(measured.counts[HALVES[0], name])


def cells(counts: Counts) -> str:
    return f"{counts.right + len(counts.misses)} | {counts.precision:.2f} | {counts.recall:.2f}"


def show(counts: Counts) -> None:
    for what, texts in (("false positive", counts.false_positives), ("missed", counts.misses)):
        for text in texts:
            print(f"    {what}: {text!r}")


if __name__ == "__main__":
    main()
