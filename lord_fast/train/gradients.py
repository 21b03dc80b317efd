"""Sums the gradients of the networks over the virtual ranks, in an order that never changes."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lord_fast.distributed.group import Group
from lord_fast.distributed.ordered import TreeSum


class GradientSum:
    """Collects the gradients and scalars of the virtual ranks of a step.

    With one virtual rank the gradients stay where the backward pass has put them.

    Args:
        parameters: The parameters, whose `grad` holds the gradients.
        group: The processes.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], group: Group):
        self.parameters, self.group = list(parameters), group
        self._tree = TreeSum()
        self._scalars: dict[str, Tensor] = {}

    def backward(self, scalars: dict[str, Tensor]) -> None:
        """Do the backward pass of a virtual rank and take the gradients of the networks.

        The loss of a step is the mean over the virtual ranks. Dividing by a power of two is exact.

        Args:
            scalars: What the step logs, as means over the images of the virtual rank. One is the
                `loss`.
        """
        count = self.group.shards.count
        (scalars["loss"] / count).backward()
        self._scalars = {name: value.detach() for name, value in scalars.items()}
        if count == 1:
            return
        flat = [p.grad.reshape(-1) for p in self.parameters if p.grad is not None]
        assert len(flat) == len(self.parameters)
        logged = torch.stack(list(self._scalars.values())).to(flat[0].dtype)
        self._tree.add(torch.cat([*flat, logged / count]))
        for parameter in self.parameters:
            parameter.grad = None

    def finish(self) -> dict[str, Tensor]:
        """Put the sums into the parameters. Return the scalars as means over the whole batch."""
        if self.group.shards.count == 1:
            return self._scalars
        total = self.group.sum(self._tree.total())
        sizes = [parameter.numel() for parameter in self.parameters]
        *sums, logged = total.split([*sizes, len(self._scalars)])
        for parameter, values in zip(self.parameters, sums, strict=True):
            # The gradient needs the memory layout of its parameter, which fused Adam relies on.
            parameter.grad = torch.empty_like(parameter).copy_(values.view(parameter.shape))
        return dict(zip(self._scalars, logged.unbind(), strict=True))
