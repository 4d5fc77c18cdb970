"""Tables of the spread over clients, on records that are made up."""

import io

from handmade import UP, arm, curve
from rich.console import Console

from fedjoint.experiments.costs import spreads


def arms(worst_tenth):
    """Return an arm of twelve clients, and one with a single client."""
    several = {"up": {"clients": 12, "std": 0.5, "worst": 0.25, "worst_tenth": worst_tenth}}
    one = {"up": {"clients": 1, "std": 0.0, "worst": 0.75, "worst_tenth": 0.75}}
    return [
        arm("joint", curve(several, test_up=[0.5]), tasks=(UP,)),
        arm("centralised", curve(one, test_up=[0.5]), tasks=(UP,)),
    ]


def printed(tables):
    """Return the words of each table."""
    texts = []
    for table in tables:
        file = io.StringIO()
        Console(file=file, width=200).print(table)
        texts.append(" ".join(file.getvalue().split()))
    return texts


def test_each_measure_has_its_table_and_one_client_no_spread():
    std, worst, tenth = printed(spreads(arms(0.3)))
    assert "standard deviation" in std and "0.50" in std
    assert "worst client: test" in worst and "0.25" in worst
    assert "worst tenth" in tenth and "0.30" in tenth
    assert not any("0.75" in text or "0.00" in text for text in (std, worst, tenth))


def test_a_worst_tenth_of_one_client_is_not_told_twice():
    _, worst = printed(spreads(arms(0.25)))
    assert "worst client, which is its worst tenth" in worst and "0.25" in worst


def test_without_records_of_it_there_is_no_table():
    assert not printed(spreads([arm("old", curve(test_up=[0.5]), tasks=(UP,))]))
