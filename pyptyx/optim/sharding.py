"""Trees shared out between processes: each rank keeps its blocks of every array.

An array is seen as a flat real vector and cut at multiples of `pyptyx.trees.BLOCK`, so that dot
products, which are sums over blocks in order, have the same bits for any number of ranks.  With one
rank a share is the tree itself and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from pyptyx import trees

Array = Any
Tree = dict[str, Array]
Layout = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]


class Ranks(Protocol):
    """What sharing needs of the processes that run together (see `pyptyx.executors`)."""

    @property
    def rank(self) -> int:
        """Number of this process."""
        ...

    @property
    def size(self) -> int:
        """Number of processes."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in their order, on every rank."""
        ...

    def concatenate(self, part: Array) -> Array:
        """The flat arrays of all ranks, one behind the other, on every rank."""
        ...


class Shards:
    """Shares of trees whose arrays keep their shapes.

    Parameters
    ----------
    communicator : Ranks or None
        None is a process of its own.
    layout : dict, optional
        ``{name: (shape, dtype)}`` of the arrays, where shares are all there is.

    Attributes
    ----------
    layout : dict
        Shapes and types of the arrays that were shared out so far.
    """

    def __init__(self, communicator: Ranks | None = None, layout: Layout | None = None):
        self._communicator = communicator
        self.alone = communicator is None or communicator.size == 1
        self.layout: Layout = dict(layout or {})

    def part(self, tree: Mapping[str, Array]) -> Tree:
        """What this rank keeps of a tree, as flat real copies."""
        return dict(tree) if self.alone else trees.copy(self._views(tree))

    def whole(self, part: Tree) -> Tree:
        """The tree that the shares of all ranks make."""
        if self.alone:
            return part
        return {name: self._joined(name, a) for name, a in part.items()}

    def vdot(self, u: Tree, v: Tree) -> float:
        """``<u, v>`` of two trees that every rank has; the same number on all of them."""
        if self.alone:
            return trees.vdot(u, v)
        return self.vdot_parts(self._views(u), self._views({k: v[k] for k in u}))

    def vdot_parts(self, u: Tree, v: Tree) -> float:
        """``<u, v>`` of two trees of which every rank has its share."""
        if self.alone or self._communicator is None:
            return trees.vdot(u, v)
        gathered = self._communicator.gather({k: trees.block_dots(u[k], v[k]) for k in u})
        return sum(float(np.concatenate([blocks[k] for blocks in gathered]).sum()) for k in u)

    def _views(self, tree: Mapping[str, Array]) -> Tree:
        self.layout |= {k: (v.shape, v.dtype) for k, v in tree.items()}
        return {k: self._mine(trees.real_view(v)) for k, v in tree.items()}

    def _mine(self, flat: Array) -> Array:
        """Whole blocks, as evenly as they come."""
        assert self._communicator is not None
        rank, size = self._communicator.rank, self._communicator.size
        blocks = -(-flat.size // trees.BLOCK)
        return flat[blocks * rank // size * trees.BLOCK : blocks * (rank + 1) // size * trees.BLOCK]

    def _joined(self, name: str, part: Array) -> Array:
        assert self._communicator is not None
        shape, dtype = self.layout[name]
        return self._communicator.concatenate(part).view(dtype).reshape(shape)
