"""The heads that tasks have by default.

Each is linear in its own numbers and has no other part, so that the mean of several heads gives the
mean of their outputs. Weights are ``[outputs, features]``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedjoint.errors import UserError
from fedjoint.model.features import Features, Shape, in_words, rank


class MeanHead(nn.Linear):
    """The mean over positions, then a linear layer, ``[n, length, f]`` to ``[n, outputs]``.

    Of a map ``[n, f, height, width]``, too.
    """

    def forward(self, features: Tensor) -> Tensor:
        pooled = features.mean(1) if features.ndim == 3 else features.flatten(2).mean(2)
        return super().forward(pooled)


class ItemHead(nn.Linear):
    """A score for each item, ``[n, items, f]`` to ``[n, items]``."""

    def __init__(self, features: int) -> None:
        super().__init__(features, 1)

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).squeeze(-1)


class MapHead(nn.Linear):
    """A linear layer at each place, ``[n, f, h, w]`` to ``[n, outputs, height, width]``.

    Args:
        features: ``(f, h, w)``.
        outputs: channels of the output.
        size: height and width, to which outputs are enlarged bilinearly; None: as the features.
    """

    rows: Tensor
    columns: Tensor

    def __init__(
        self, features: tuple[int, ...], outputs: int, size: tuple[int, ...] | None = None
    ) -> None:
        super().__init__(features[0], outputs)
        self.enlarges = size is not None and size != features[1:]
        for name, short, long in zip(("rows", "columns"), features[1:], size or (), strict=False):
            self.register_buffer(name, _enlarging(short, long), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        output = super().forward(features.movedim(1, -1)).movedim(-1, 1)
        # As F.interpolate, whose gradient on a GPU is another at every call.
        return self.rows @ output @ self.columns.T if self.enlarges else output


def _enlarging(short: int, long: int) -> Tensor:
    """Return ``[long, short]``, what interpolates linearly between ``short`` cells."""
    each = torch.eye(short)[None]
    return F.interpolate(each, long, mode="linear", align_corners=False)[0].T


class Reads(nn.Module):
    """A head of one of several features.

    Args:
        name: of the features that it reads.
        head: what reads them.
    """

    def __init__(self, name: str, head: nn.Module) -> None:
        super().__init__()
        self.name, self.head = name, head

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        output: Tensor = self.head(features[self.name])
        return output


def default_head(
    features: Features, ranks: Sequence[int], make: Callable[[Shape], nn.Module]
) -> nn.Module:
    """Return the head that ``make`` makes of the features' shape.

    Of several features, it is of the only ones with the first of ``ranks`` that any has.

    Args:
        features: what the backbone returns.
        ranks: dimensions of features that the head takes, the best first: 1 vectors, 2 sequences,
            3 maps.
        make: shape of features -> head.

    Raises:
        UserError: no features fit, or several do.
    """
    named = features if isinstance(features, dict) else {"": features}
    for wanted in ranks:
        fitting = [name for name, shape in named.items() if rank(shape) == wanted]
        if len(fitting) > 1:
            raise UserError(
                f"{' and '.join(fitting)} of the backbone would do: give the task a head that "
                "reads one of them"
            )
        for name in fitting:
            head = make(named[name])
            return Reads(name, head) if isinstance(features, dict) else head
    forms = " or ".join(_FORMS[wanted] for wanted in ranks)
    raise UserError(
        f"the backbone makes {in_words(features)} of an input, and it takes {forms}: take another "
        "backbone, or give the task a head"
    )


_FORMS = {1: "[features]", 2: "[length, features]", 3: "[channels, height, width]"}
