"""A table of two clinics, with two labels and three features; and runs of it."""

import csv
import random

from fedjoint.config.load import check

COLUMNS = ("clinic", "diag", "a", "b", "d", "q")


def write(path, columns=COLUMNS, *, unlabelled=()):
    """Write the table with these columns; clinics that are ``unlabelled`` have no ``q``."""
    drawn = random.Random(3)
    with path.open("w", newline="") as file:
        rows = csv.DictWriter(file, columns, extrasaction="ignore")
        rows.writeheader()
        for number in range(160):
            row = {"clinic": "xyzw"[number % 4], **{name: drawn.gauss(0, 1) for name in "abd"}}
            row |= {"diag": int(row["a"] > 0), "q": int(row["b"] > row["d"])}
            if row["clinic"] in unlabelled:
                row["q"] = ""
            rows.writerow(row)
    return str(path)


def config(folder, path, *, initial=None, local=None, share=("*",), targets=("diag",), **options):
    """Return a run of two rounds on the table in ``path``, without ``q`` as a feature."""
    given = {"path": path, "client_column": "clinic", "drop": ["q"], **options}
    given["targets"] = dict.fromkeys(targets, "multiclass")
    model = {"backbone": {"name": "mlp", "options": {"hidden": [8, 4]}}, "share": list(share)}
    tree = {
        "rounds": 2,
        "data": {"partition": "natural", "source": {"name": "csv", "options": given}},
        "model": model | ({"initial": str(initial)} if initial else {}),
        "local": {"steps": 3, **(local or {})},
        "engine": "inline",
        "output": {"dir": str(folder / "runs")},
    }
    return check(tree)
