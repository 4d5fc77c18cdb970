"""The guide's table of faults: every line is one that fedjoint says, and a test looks at."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
GUIDE = (REPOSITORY / "simulations/deployment/README.md").read_text("utf-8")
ROW = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)
SEEN = ROW.findall(GUIDE.partition("## What you see")[2].partition("\n## ")[0])


def texts(*folders):
    """Return all that the Python files of some folders say, without how it is broken into lines."""
    files = [p for f in folders for p in (REPOSITORY / f).rglob("*.py") if p != Path(__file__)]
    return [re.sub(r'"\s*\n\s*f?"', "", file.read_text("utf-8")) for file in files]


def test_there_are_lines():
    assert len(SEEN) > 20 and len(set(SEEN)) == len(SEEN)


@pytest.mark.parametrize("seen", SEEN)
def test_a_test_produces_what_the_guide_says(seen):
    assert any(seen in text for text in texts("tests")), f"no test looks at {seen!r}"


def test_nobody_installs_it_from_an_index():
    pages = [REPOSITORY / "README.md", *REPOSITORY.glob("docs/**/*.md")]
    for text in (GUIDE, *(page.read_text("utf-8") for page in pages)):
        assert not re.search(r"pip install ['\"]?fedjoint", text)
