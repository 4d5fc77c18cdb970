"""A model of the library transformers as a backbone: its mask, and the features of an input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fedjoint.errors import UserError
from fedjoint.model.pretrained.images import Scale, moments_file
from fedjoint.model.pretrained.portable import OfTransformers
from fedjoint.model.tree import Input, named

#: How the vectors of a sequence become one: their mean, the first, the last; or they stay several.
Pooling = Literal["mean", "cls", "last", "none"]

#: The name of an input that is one tensor, see :func:`fedjoint.model.tree.named`.
ALONE = ""

#: Added to what attention must not see; infinity would make rows that see nothing NaN, and
#: bfloat16 has no larger number.
_UNSEEN = float(torch.finfo(torch.bfloat16).min)

#: which positions are no padding, ``[n, length]`` bool -> what the model takes as its mask
Mask = Callable[[Tensor], Tensor]


class TextEncoder(OfTransformers):
    """Token ids ``[n, length]`` to features ``[n, width]``, unpooled ``[n, length, width]``.

    Inputs are the ids alone, or a dict of ``input_ids``, ``attention_mask`` (default: what is not
    the id that pads) and whatever else the model takes by name.

    Args:
        body: the model; takes ``input_ids`` and ``attention_mask``.
        pad: the id that pads, which is in no sentence; -1: none does.
        pooling: how the vectors of a sequence become one. Padding does not count.
        length: of the inputs.
    """

    def __init__(self, body: nn.Module, pad: int, pooling: Pooling, length: int) -> None:
        super().__init__(body)
        self.pad, self.pooling = pad, pooling
        self.mask = _find_mask(body, pad, length)

    def forward(self, x: Input) -> Tensor:
        ids, seen, others = self._parts(**named(x))
        output = self.body(input_ids=ids, attention_mask=self.mask(seen), **others)
        return pool(hidden_states(output, self.body), seen, self.pooling)

    def _parts(self, **parts: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        ids = parts.pop(ALONE) if ALONE in parts else parts.pop("input_ids")
        mask = parts.pop("attention_mask", None)
        return ids, ids != self.pad if mask is None else mask != 0, parts


class ImageEncoder(OfTransformers):
    """Images ``[n, channels, height, width]`` to features ``[n, width]``.

    Unpooled, features are ``[n, patches, size]``, or of convolutions ``[n, size, height, width]``.
    Inputs are images alone, or a dict of ``pixel_values`` and whatever else the model takes.

    Args:
        body: the model; takes ``pixel_values``.
        pooling: how the vectors of an image's patches become one.
        moments: mean and deviation of each channel, by which images are scaled; None: they are.
    """

    def __init__(
        self, body: nn.Module, pooling: Pooling, moments: tuple[Tensor, Tensor] | None
    ) -> None:
        super().__init__(body)
        self.pooling = pooling
        self.scale = Scale(*moments) if moments else nn.Identity()

    def structure(self) -> dict[str, bytes]:
        if isinstance(self.scale, nn.Identity):
            return super().structure()
        said = moments_file(self.scale.mean.flatten(), self.scale.deviation.flatten())
        return {**super().structure(), **said}

    def forward(self, x: Input) -> Tensor:
        parts = dict(named(x))
        pixels = parts.pop(ALONE) if ALONE in parts else parts.pop("pixel_values")
        hidden = hidden_states(self.body(pixel_values=self.scale(pixels), **parts), self.body)
        if hidden.ndim == 4 and self.pooling != "none":
            return hidden.mean((2, 3))
        return pool(hidden, hidden.new_ones(hidden.shape[:2], dtype=torch.bool), self.pooling)


def pool(hidden: Tensor, seen: Tensor, pooling: Pooling) -> Tensor:
    """Return one vector for each sequence; or the sequences.

    Args:
        hidden: ``[n, length, width]``.
        seen: ``[n, length]`` bool, what is no padding; a sequence of padding alone has zeros as its
            mean, and its first vector as its last.
        pooling: how.
    """
    if pooling == "none":
        return hidden
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":
        last = (seen * torch.arange(seen.shape[1], device=seen.device)).amax(1)
        return hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[2])).squeeze(1)
    weights = seen.to(hidden.dtype)[..., None]
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def hidden_states(output: Any, body: nn.Module) -> Tensor:
    """Return the last layer's vectors in what ``body`` returned.

    Raises:
        UserError: there are none.
    """
    hidden = getattr(output, "last_hidden_state", None)
    if not isinstance(hidden, Tensor) or hidden.ndim not in (3, 4):
        raise UserError(
            f"{type(body).__name__} returns {type(output).__name__} without a last_hidden_state "
            "[n, length, width]: give a model that AutoModel loads as an encoder or a decoder"
        )
    return hidden


def _find_mask(body: nn.Module, pad: int, length: int) -> Mask:
    """Return the mask with which ``body`` computes what it computes by its own means.

    Given what is no padding, ``[n, length]``, the library looks at the numbers to decide what to
    do, which no batched program can. It takes a mask ``[n, 1, length, length]`` as it is. Which one
    is right, its own result tells: that of an encoder, of a decoder, or neither (windows).
    """
    ids, seen = _some_ids(body, pad, length)
    training = body.training
    body.eval()
    try:
        with torch.no_grad():
            own = hidden_states(body(input_ids=ids, attention_mask=seen.long()), body)
            for mask in (_see_all, _see_before):
                if _gives(body, ids, mask(seen), own[seen], seen):
                    return mask
    finally:
        body.train(training)
    return _as_numbers


def _gives(body: nn.Module, ids: Tensor, mask: Tensor, own: Tensor, seen: Tensor) -> bool:
    try:
        found = hidden_states(body(input_ids=ids, attention_mask=mask), body)[seen]
    except Exception:  # a model may take no such mask
        return False
    return torch.allclose(found, own, rtol=1e-4, atol=1e-5)


def _some_ids(body: nn.Module, pad: int, length: int) -> tuple[Tensor, Tensor]:
    """Return a long and a short sequence of ids ``[2, length]``, and what of them is no padding."""
    vocabulary = int(body.config.vocab_size)  # type: ignore[union-attr,arg-type]
    others = torch.tensor([i for i in range(min(vocabulary, length + 1)) if i != pad] or [0])
    ids = others[torch.arange(2 * length) % len(others)].view(2, length)
    seen = torch.ones_like(ids, dtype=torch.bool)
    seen[1, (length + 1) // 2 :] = False
    return ids.where(seen, max(pad, 0)), seen


def _see_all(seen: Tensor) -> Tensor:
    n, length = seen.shape
    return _added(seen[:, None, None, :].expand(n, 1, length, length))


def _see_before(seen: Tensor) -> Tensor:
    length = seen.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=seen.device).tril()
    return _added(seen[:, None, None, :] & before)


def _as_numbers(seen: Tensor) -> Tensor:
    return seen.long()


def _added(allowed: Tensor) -> Tensor:
    return torch.zeros_like(allowed, dtype=torch.float32).masked_fill(~allowed, _UNSEEN)
