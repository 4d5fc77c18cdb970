"""Words and numbers for people."""

import pytest

from fedjoint._util.wording import figure, plain


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (-999.9, "-999.900"), (-5e30, "-5.0e+30"), (1000.0, "1.0e+03")],
)
def test_a_number_never_grows_with_what_diverged(value, text):
    assert figure(value, 3) == text
    assert len(figure(value, 4)) <= 10


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("two\nlines\tand \x1b[31mred", "two lines and ?[31mred"),
        ("x" * 500, "x" * 500),
        ("x" * 5_000_000, "x" * 500 + "..."),
        (" y" * 600, "y " * 250 + "..."),
    ],
)
def test_what_others_wrote_is_one_short_line(text, line):
    assert plain(text) == line
