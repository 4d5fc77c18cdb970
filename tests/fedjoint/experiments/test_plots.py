"""Plots: what they draw, and when they leave a picture out."""

from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
from handmade import both
from support.records import make_record

from fedjoint.experiments import plots


@pytest.fixture
def drawn(monkeypatch):
    """Keep figures that would be closed once they are saved."""
    figures: list = []
    monkeypatch.setattr(plt, "close", figures.append)
    yield figures
    monkeypatch.undo()
    for figure in figures:
        plt.close(figure)


@pytest.mark.parametrize("count", [3, 12])
def test_every_arm_has_a_line_of_its_own_in_every_panel(tmp_path, drawn, count):
    arms = [both(f"arm {i}", [0.1 * i, 0.1 * i + 0.2], [1.0, 2.0]) for i in range(count)]
    plots.convergence(arms, tmp_path / "a.png")
    (figure,) = drawn
    panels = [axis for axis in figure.axes if axis.lines]
    assert [axis.get_title() for axis in panels] == ["up", "size"]
    for axis in panels:
        assert len({line.get_color() for line in axis.lines}) == count
        assert len(axis.collections) == (count if count == 3 else 0)  # ranges over seeds
    for i, line in enumerate(panels[0].lines):
        assert line.get_ydata().tolist() == pytest.approx([0.1 * i + 0.1])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [arm.name for arm in arms]
    assert (tmp_path / "a.png").stat().st_size > 0


def test_a_run_that_was_far_below_zero_does_not_hide_the_rest(tmp_path, drawn):
    arms = [
        both("wild", [-80.0, -90.0], [1.0, 2.0]),
        both("sound", [0.8, 0.9], [1.0, 2.0]),
    ]
    plots.convergence(arms, tmp_path / "a.png")
    up, size = drawn[0].axes[:2]
    assert up.get_ylim() == pytest.approx((-1, 0.9 + 0.05 * 1.9))
    assert size.get_ylim()[0] > 0


def test_an_arm_has_one_colour(tmp_path, drawn):
    arms = [both(name, [0.5], [1.0]) for name in ("alone", "joint")]
    records = arms[1].seeds[0].runs[0].records
    records[0] = replace(records[0], diagnostics={"clients": {"conflicting": 0.25}})
    plots.convergence(arms, tmp_path / "a.png")
    plots.conflict(arms, tmp_path / "b.png")
    convergence, conflict = (figure.axes[0].lines for figure in drawn)
    assert convergence[1].get_color() == conflict[0].get_color() != convergence[0].get_color()


def test_conflicts_that_nobody_measured_are_left_out_in_words(tmp_path, drawn):
    arms = [both("a", [0.5], [1.0]), both("b", [0.5], [1.0])]
    file = tmp_path / "conflict.png"
    assert plots.conflict(arms, file) == "no plot of conflicts: no round has diagnostics"
    assert not file.exists() and not drawn
    records = arms[1].seeds[0].runs[0].records
    records[0] = replace(records[0], diagnostics={"clients": {"conflicting": 0.25}})
    assert plots.conflict(arms, file) is None and file.exists()
    (line,) = drawn[0].axes[0].lines
    assert (line.get_label(), line.get_xydata().tolist()) == ("b", [[1.0, 0.25]])


def record(ids):
    """Return a round's record with the cosines of these tasks."""
    cosine = [[1.0 if a == b else -0.5 for a in ids] for b in ids]
    return make_record(1, diagnostics={"tasks": {"ids": ids, "cosine": cosine}})


def test_tasks_of_the_same_clients_are_seen_within_them_alone(tmp_path, drawn):
    same = {"ids": ["a", "b"], "cosine": [[1.0, None], [None, 1.0]]}
    within = {"ids": ["a", "b"], "cosine": [[1.0, 0.25], [0.25, 1.0]]}
    file = tmp_path / "cosine.png"
    records = [make_record(1, diagnostics={"tasks": same})]
    assert "no two tasks of different clients" in plots.task_cosines(records, file)
    assert (
        plots.task_cosines([*records, make_record(2, diagnostics={"within": within})], file) is None
    )
    shown = [axis.images[0].get_array().tolist() for axis in drawn[0].axes if axis.images]
    assert shown == [within["cosine"]]


def test_a_map_of_one_cell_is_left_out_in_words(tmp_path, drawn):
    file = tmp_path / "cosine.png"
    assert plots.task_cosines([record(["a"])], file) == (
        "no map of the cosines between tasks: there is one task"
    )
    assert "no round has diagnostics" in plots.task_cosines([make_record(1)], file)
    assert not file.exists() and not drawn
    assert plots.task_cosines([record(["a", "b"])], file) is None
    assert file.exists() and drawn[0].axes[0].images[0].get_array().tolist() == [
        [1.0, -0.5],
        [-0.5, 1.0],
    ]
