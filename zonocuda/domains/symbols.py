"""Noise symbols, known by their identity."""

from __future__ import annotations

from zonocuda.ranks import Ranks


class Symbols:
    """A group of ``count`` noise symbols in [-1, 1], known by its identity; ``origin`` says where they arose.

    Two tensors depend on the same symbols exactly where their blocks have the same ``Symbols`` object. A group can be
    cut into parts, once and for all (see :meth:`cut`): a block of the group is then the same as one block for each
    part, so that tensors that were cut and tensors that were not still cancel what they share.

    A group can be shared out over ranks (see :meth:`share`): each rank then has a group of its own, its share, whose
    ``ranks`` say so.
    """

    __slots__ = ("_share", "count", "offset", "origin", "parent", "parts", "ranks")

    def __init__(
        self,
        count: int,
        origin: str = "",
        parent: Symbols | None = None,
        offset: int = 0,
        ranks: Ranks | None = None,
    ) -> None:
        self.count = count
        self.origin = origin
        self.parent = parent
        self.offset = offset
        self.ranks = ranks
        self.parts: tuple[Symbols, ...] | None = None
        self._share: Symbols | None = None

    def cut(self, size: int) -> tuple[Symbols, ...]:
        """The parts of the group: of at most ``size`` symbols each at the first call, the same ones ever after.

        Raises:
            ValueError: a size below 1.
        """
        if size < 1:
            raise ValueError(f"Symbols.cut: parts must have at least one symbol, got {size}")
        if self.parts is None:
            starts = range(0, self.count, size)
            self.parts = tuple(Symbols(min(size, self.count - k), self.origin, self, k, self.ranks) for k in starts)
        return self.parts

    def share(self, ranks: Ranks) -> Symbols:
        """This rank's symbols of the group, a run of them: the same object for the same ranks.

        Raises:
            ValueError: the group is a share itself.
        """
        if self.ranks is not None:
            raise ValueError(f"Symbols.share: {self} is a share of {self.ranks} already")
        if self._share is None or self._share.ranks != ranks:
            run = ranks.share(self.count)
            self._share = Symbols(run.stop - run.start, self.origin, self, run.start, ranks)
        return self._share

    @property
    def whole(self) -> Symbols:
        """The group that this one was cut from, at the first of all cuts, or is a share of, with all ranks' symbols;
        itself where it is neither."""
        return self if self.parent is None else self.parent.whole

    def __repr__(self) -> str:
        return f"Symbols({self.count}, {self.origin!r}, id={id(self):#x})"
