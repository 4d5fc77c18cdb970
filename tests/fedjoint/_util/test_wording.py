"""Words and numbers for people."""

import pytest

from fedjoint._util.wording import figure


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (-999.9, "-999.900"), (-5e30, "-5.0e+30"), (1000.0, "1.0e+03")],
)
def test_a_number_never_grows_with_what_diverged(value, text):
    assert figure(value, 3) == text
    assert len(figure(value, 4)) <= 10
