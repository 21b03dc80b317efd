"""A sum whose order of additions does not depend on the number of processes.

Float addition is not associative, so a sum has the same bits only if its brackets are the same. The
brackets here are those of a complete binary tree over all virtual ranks. A process adds its own
virtual ranks, which are a complete subtree, and the subtrees are then added in pairs.
"""

from torch import Tensor


class TreeSum:
    """Adds 2^k tensors that come one after another, as a complete binary tree.

    It keeps at most k + 1 of them, like the digits of a binary counter.
    """

    def __init__(self):
        self._subtrees: list[tuple[int, Tensor]] = []

    def add(self, value: Tensor) -> None:
        """Add a tensor, which is overwritten."""
        size = 1
        while self._subtrees and self._subtrees[-1][0] == size:
            value = self._subtrees.pop()[1].add_(value)
            size *= 2
        self._subtrees.append((size, value))

    def total(self) -> Tensor:
        """Return the sum and start the next one."""
        ((_, total),) = self._subtrees
        self._subtrees = []
        return total


def pairwise(pieces: Tensor) -> Tensor:
    """Add the rows of a tensor [2^k, n] as a complete binary tree. Return the sum [n]."""
    while len(pieces) > 1:
        pieces = pieces[0::2] + pieces[1::2]
    return pieces[0]
