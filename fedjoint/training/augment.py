"""Augmentation: a minibatch is changed at random before a step, on the device.

A client's numbers are its own, drawn by (seed, round, client, step), and its padding is never
shown: a run gives the same bits whoever trains together. Evaluation, and what is measured at the
training examples (``Job.loss``, the tasks' gradients), see them as they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes

from fedjoint.config.section import Plugin
from fedjoint.errors import ANYTHING, UserError, said
from fedjoint.model.tree import Input, check_tree, count, each, first, form, like, named
from fedjoint.options import make_plugin
from fedjoint.randomness import Purpose, derive, seeded, seeded_elsewhere


class Augmentation(ABC):
    """Base class of the augmentations; options are the arguments of ``__init__``."""

    @abstractmethod
    def augment(self, x: Input) -> Input:
        """Return a client's minibatch, changed.

        Random numbers of PyTorch, of NumPy and of Python are the client's own.

        Args:
            x: ``[n, ...]``, a tensor or a dict of them, without padding; it may be changed in
                place.

        Returns:
            Inputs of the same types and shapes.
        """


@dataclass(frozen=True)
class Augmentations:
    """The augmentations of a run, one after the other.

    Attributes:
        named: each with what names it in messages.
    """

    named: Sequence[tuple[str, Augmentation]]

    def apply(self, x: Input, counts: np.ndarray, seeds: np.ndarray) -> Input:
        """Return the minibatch ``x`` ``[clients, batch, ...]``, changed in place.

        Args:
            x: padding comes last.
            counts: ``[clients]``, examples of each that are no padding.
            seeds: ``[clients]`` uint64, of the client's step.

        Raises:
            UserError: an augmentation fails, or returns inputs of another type or shape.
        """
        device = first(x).device
        rows = zip(counts.tolist(), seeds.tolist(), strict=True)
        # Every client has a seed: what lets many draw at once is not needed.
        with _disable_current_modes(), torch.no_grad():
            for row, (size, seed) in enumerate(rows):
                if not size:
                    continue
                own = {name: part[row, :size] for name, part in named(x).items()}
                with seeded(device, seed), seeded_elsewhere(seed):
                    changed = self._one(like(own, x))
                for name, part in named(changed).items():
                    own[name].copy_(part)
        return x

    def _one(self, x: Input) -> Input:
        for name, augmentation in self.named:
            before = x
            try:
                x = augmentation.augment(each(torch.clone, before))
            except UserError:
                raise
            except ANYTHING as error:  # of the user's own code
                raise UserError(f"augmentation {name}: {said(error)}") from error
            check_tree(x, f"augmentation {name}: what it returns")
            if _kinds(x) != _kinds(before):
                raise UserError(
                    f"augmentation {name} makes {count(x)} inputs {form(x)} of {count(before)} "
                    f"{form(before)}: keep their types and shapes"
                )
        return x


def _kinds(x: Input) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {name: (part.dtype, part.shape) for name, part in named(x).items()}


def make_augmentations(plugins: Sequence[Plugin]) -> Augmentations | None:
    """Return the augmentations that are named; None where there are none.

    Raises:
        UserError: there is no such augmentation, or an option is wrong.
    """
    made = [
        (plugin.name, make_plugin("augmentations", plugin.name, plugin.options, Augmentation))
        for plugin in plugins
    ]
    return Augmentations(made) if made else None


def seeds_of_steps(
    seed: int, stream: int, round: int, clients: np.ndarray, present: np.ndarray
) -> np.ndarray:
    """Return ``[steps, clients]`` uint64, a seed for each client's own first, second, ... step.

    Args:
        seed: the run's.
        stream: which order of minibatches.
        round: the round.
        clients: ``[clients]`` ids.
        present: ``[steps, clients]`` bool, who takes a step.
    """
    return derive(seed, Purpose.AUGMENTATION, stream, round, clients, np.cumsum(present, 0))
