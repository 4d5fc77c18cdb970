"""What groups of clients with different architectures share, and what only one of them has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from fedjoint.errors import UserError
from fedjoint.model.layout import Layout
from fedjoint.model.sharing import chosen

#: The name of the part that all groups share, which is no name of a group.
COMMON = "common"

_SAID = 6  # names in a message


@dataclass(frozen=True)
class Part:
    """Shared tensors that the same groups have, and that are merged as one vector.

    Attributes:
        name: ``common``, or that of the only group that has them; empty where there is one
            architecture.
        layout: names and shapes, parameters before buffers.
        groups: names of the groups that have them.
    """

    name: str
    layout: Layout
    groups: tuple[str, ...]


class Parts:
    """The shared tensors of all groups: those in common once, then those of each group.

    Args:
        groups: name -> the shared tensors of its clients; of one architecture for all, the name is
            empty.
        common: patterns of the names of what all groups share, see :func:`choose_common`.

    Attributes:
        groups: the same, in the order of the names.
        parts: the parts that have tensors.
        layout: of everything, parameters before buffers, by :meth:`key`.

    Raises:
        UserError: a pattern does not fit the groups.
    """

    def __init__(self, groups: Mapping[str, Layout], common: Sequence[str] = ()) -> None:
        self.groups = {name: groups[name] for name in sorted(groups)}
        self._common = choose_common(common, self.groups) if common else set[str]()
        self.parts = tuple(part for part in self._divide() if part.layout.shapes)
        shapes, buffers = dict[str, tuple[int, ...]](), dict[str, tuple[int, ...]]()
        for part in self.parts:
            for name, shape in part.layout.shapes.items():
                own = buffers if name in part.layout.buffers else shapes
                own[self.key(part.groups[0], name)] = shape
        self.layout = Layout(shapes | buffers, tuple(buffers))

    def _divide(self) -> list[Part]:
        some = next(iter(self.groups.values()), Layout({}))
        parts = [Part(COMMON, _only(some, self._common), tuple(self.groups))]
        for group, layout in self.groups.items():
            own = _only(layout, layout.shapes.keys() - self._common)
            parts.append(Part(group, own, (group,)))
        return parts

    def key(self, group: str, name: str) -> str:
        """Return what a tensor of a group is called among those of all."""
        return name if name in self._common else own_key(group, name)

    def of(self, group: str, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a group's tensors as it calls them, of those of all."""
        return {name: named[self.key(group, name)] for name in self.groups[group].shapes}

    def parts_of(self, group: str) -> list[Part]:
        """Return the parts that a group has."""
        return [part for part in self.parts if group in part.groups]


def own_key(group: str, name: str) -> str:
    """Return what a tensor that only ``group`` has is called among those of all groups."""
    return f"groups.{group}.{name}" if group else name


def _only(layout: Layout, names: set[str]) -> Layout:
    shapes = {name: shape for name, shape in layout.shapes.items() if name in names}
    return Layout(shapes, tuple(name for name in layout.buffers if name in names))


def choose_common(patterns: Sequence[str], groups: Mapping[str, Layout]) -> set[str]:
    """Return the names of the shared tensors that all groups have in common.

    Patterns are like those of :func:`fedjoint.model.sharing.choose_shared`.

    Args:
        patterns: the setting ``model.common``.
        groups: name -> the shared tensors of its clients.

    Raises:
        UserError: a pattern matches nothing of a group, a name is not in all groups or has another
            shape there, or nothing is left.
    """
    of_group = {group: _choose(patterns, group, layout) for group, layout in groups.items()}
    first, names = next(iter(of_group.items()))
    for group, own in of_group.items():
        if odd := sorted(names ^ own):
            has, lacks = (first, group) if odd[0] in names else (group, first)
            raise UserError(
                f"model.common: {odd[0]!r} is shared in group {has!r} and not in {lacks!r}: give "
                "both the same layers under the same names, or take it away with '!'"
            )
        for name in sorted(names):
            _check_alike(name, (first, groups[first]), (group, groups[group]))
    if not names:
        raise UserError(f"model.common = {list(patterns)} leaves nothing in common: leave it out")
    return names


def _choose(patterns: Sequence[str], group: str, layout: Layout) -> set[str]:
    def unmatched(pattern: str) -> UserError | None:
        if pattern.startswith("!"):
            return None
        some = ", ".join(list(layout.shapes)[:_SAID])
        return UserError(
            f"model.common: {pattern!r} matches nothing that group {group!r} shares; it has "
            f"{some}{', ...' if len(layout.shapes) > _SAID else ''}"
        )

    return chosen(patterns, layout.shapes, unmatched)


def _check_alike(name: str, one: tuple[str, Layout], other: tuple[str, Layout]) -> None:
    (first, here), (second, there) = one, other
    if here.shapes[name] != there.shapes[name]:
        raise UserError(
            f"model.common: {name!r} is {here.shapes[name]} in group {first!r} and "
            f"{there.shapes[name]} in {second!r}: give both layers of one size, or take it away "
            "with '!'"
        )
    if (name in here.buffers) is not (name in there.buffers):
        raise UserError(
            f"model.common: {name!r} is a parameter in one of the groups {first!r} and {second!r} "
            "and a buffer in the other: take it away with '!'"
        )
