"""What a comparison comes to, in words: only what an interval says is claimed."""

from __future__ import annotations

import math

from fedjoint.experiments.auto import AUTO
from fedjoint.experiments.compare import Comparison
from fedjoint.experiments.intervals import LEVEL, Interval, p_value
from fedjoint.experiments.paired import Paired, overall


def verdict(comparison: Comparison) -> list[str]:
    """Say, for each part of the gain, whether it helps, and which tasks it hurts; a line each."""
    found = overall(comparison.parts)
    lines = []
    for part, pair in comparison.parts.items():
        between = f"{pair.reference.name} to {pair.arm.name}"
        lines.append(f"{part.capitalize()} ({between}): {_part(pair, found[part])}")
    if comparison.idle:
        lines.append(
            f"Nobody has learnt {', '.join(comparison.idle)}: no arm is better than the trivial "
            "predictor there, so no gain is counted."
        )
    lines += [_regretted(comparison)] if AUTO in comparison.arms else []
    lines += [_passed(comparison)] if comparison.passed else []
    return lines


def _regretted(comparison: Comparison) -> str:
    """Say where what validation data pick is worse than the arm that is best on the test data."""
    found, told = [], 0
    for task, pair in comparison.regrets.items():
        values = pair.gain(task)
        gain = pair.interval(values)
        told += sum(map(math.isfinite, values)) > 1
        if gain.mean < 0 and p_value(values, pair.overlap) < LEVEL:
            found.append(f"{task.name} ({pair.reference.name} is better, {gain:+.3f})")
    if not told:
        return "Whether auto is worse than the best other arm, this does not tell."
    if not found:
        return "Auto is on no task worse than the best other arm by more than the interval."
    return f"Auto is worse than the best other arm on {', '.join(found)}."


def _passed(comparison: Comparison) -> str:
    where = ", ".join(f"{task} ({arm} is)" for task, arm in comparison.passed.items())
    return (
        f"Centralised training is no upper reference here, as it is not the best on {where}: tune "
        "it (--tune), or give it more rounds."
    )


def _part(pair: Paired, p: float) -> str:
    gain = pair.interval(pair.delta_m())
    if math.isnan(gain.mean):
        return "nobody can tell, as a test metric is undefined." + _worse(pair)
    if not any(pair.delta_m()):
        return "makes no difference." + _worse(pair)
    wins = f"better in {pair.interval(pair.won()).mean:.0%} of tasks and seeds"
    return f"{_word(pair, gain, p)}, Delta-m {gain:+.2f} %, {wins}.{_worse(pair)}"


def _word(pair: Paired, gain: Interval, p: float) -> str:
    direction = "help" if gain.mean > 0 else "hurt"
    if p < LEVEL:
        return f"{direction}s"
    if math.isnan(p):
        return f"may {direction}, one seed does not settle it"
    if gain.half == 0:
        return f"may {direction}, seeds that all moved alike do not settle it"
    alone = p_value(pair.delta_m(), pair.overlap)
    why = " beside the other comparisons" if alone < LEVEL else ""
    return f"may {direction}, the seeds do not settle it{why}"


def _worse(pair: Paired) -> str:
    p_values = pair.p_values()
    gains = {task.name: pair.interval(pair.gain(task)).mean for task in pair.arm.tasks}
    hurt = [name for name, gain in gains.items() if gain < 0 and p_values[name] < LEVEL]
    return f" Worse on {', '.join(hurt)}." if hurt else ""
