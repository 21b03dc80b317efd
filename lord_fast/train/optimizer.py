"""Adam for the dense parameters, its state as named tensors."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lord_fast.config import TrainConfig


def adam(parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.Adam:
    """PyTorch's fused Adam with the betas and the epsilon of a configuration."""
    return torch.optim.Adam(
        parameters, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True
    )


def step(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Update with a learning rate, and drop the gradients."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad()


def state_dict(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of every parameter as INDEX.NAME -> tensor; empty before the first step."""
    return {
        f"{index}.{name}": tensor
        for index, state in optimizer.state_dict()["state"].items()
        for name, tensor in state.items()
    }


def load_state_dict(optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    """Restore what `state_dict` returned, in the memory layout of the parameters.

    (The fused kernel walks parameters and moments in storage order: a channels-last weight beside
    moments that were saved contiguous would be updated with other elements' moments.)
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    nested: dict[int, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        index, name = key.split(".", 1)
        like = parameters[int(index)]
        if tensor.shape == like.shape:
            tensor = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)
        nested.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": nested})
