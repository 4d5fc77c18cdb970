"""What the inputs and the classes of a node's data are called, as the server may know it."""

from __future__ import annotations

import hashlib
import json

from fedjoint.problem import Problem


def named(problem: Problem) -> tuple[list[str], dict[str, str]]:
    """Return the names of the inputs, and task -> a digest of the names of its classes.

    Nodes number classes by their sorted names, so these have to be the same everywhere. The names
    themselves stay: who has a rare class is nobody's business.

    Args:
        problem: its data may have a ``legend``, see :class:`fedjoint.data.dataset.Dataset`.
    """
    texts, classes = list(getattr(problem.data, "legend", ())), {}
    for task in problem.tasks:
        own = [text for text in texts if text.startswith(f"{task.name}: ")]
        texts = [text for text in texts if text not in own]
        if own:
            classes[task.name] = hashlib.sha256(json.dumps(own).encode()).hexdigest()
    return texts, classes
