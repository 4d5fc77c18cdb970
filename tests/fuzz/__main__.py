"""``python -m tests.fuzz --minutes 10``: the table of docs/reliability.md."""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from harness import fuzz
from targets import TARGETS


def main() -> None:
    """Fuzz every target for its share of the time, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    minutes = parser.parse_args().minutes
    logging.disable(logging.CRITICAL)
    print("| input | tried | taken as they are | refused in one line |\n| --- | --- | --- | --- |")
    for name, target in TARGETS.items():
        counts = fuzz(target, 20, 60 * minutes / len(TARGETS))
        bad = sum(n for word, n in counts.items() if word in ("refused", "exit 2", "3 trained"))
        total = counts.total()
        print(f"| {name} | {total:,} | {total - bad:,} | {bad:,} |", flush=True)


if __name__ == "__main__":
    main()
