"""Adam for the dense parameters, its state as named tensors."""

import importlib
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from lord_fast.config import AdamConfig


def adam(
    parameters: Iterable[nn.Parameter], config: AdamConfig, lr: float, captured: bool = False
) -> torch.optim.Optimizer:
    """Fused Adam, PyTorch's or apex's.

    Args:
        parameters: What is learnt.
        config: Betas, epsilon and implementation.
        lr: Learning rate at the start.
        captured: Whether a CUDA graph will hold the step.

    Raises:
        ValueError: --optimizer apex, and NVIDIA's apex is not there, or --cuda-graph is.
    """
    betas = (config.beta1, config.beta2)
    if config.optimizer == "apex":
        if captured:
            raise ValueError("--optimizer apex: not with --cuda-graph; leave --optimizer at torch")
        make = _apex_fused_adam()
        return make(parameters, lr=lr, betas=betas, eps=config.eps, adam_w_mode=False)
    parameters = list(parameters)
    place = torch.tensor(lr, device=parameters[0].device)  # what a CUDA graph holds, not its value
    return torch.optim.Adam(
        parameters, place if captured else lr, betas, config.eps,
        fused=True, capturable=captured and place.is_cuda,
    )  # fmt: skip


def _apex_fused_adam() -> Callable[..., torch.optim.Optimizer]:
    try:
        importlib.import_module("amp_C")
        return importlib.import_module("apex.optimizers").FusedAdam
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"--optimizer apex: NVIDIA's apex with its CUDA extensions is needed ({error}); build "
            f"it from https://github.com/NVIDIA/apex (the package named apex on PyPI is another "
            f"project: do not install it), or leave --optimizer at torch"
        ) from error


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Of the updates to come."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def step(optimizer: torch.optim.Optimizer) -> None:
    """Update, and drop the gradients."""
    optimizer.step()
    optimizer.zero_grad()


def state_dict(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of every parameter as INDEX.NAME -> tensor; empty before the first step."""
    found = {
        f"{index}.{name}": tensor
        for index, state in optimizer.state_dict()["state"].items()
        for name, tensor in state.items()
    }
    if "step" in optimizer.param_groups[0]:  # where apex counts
        found["step"] = torch.tensor(optimizer.param_groups[0]["step"])
    return found


def load_state_dict(optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    """Restore what `state_dict` returned, in the memory layout of the parameters.

    (The fused kernel walks parameters and moments in storage order: a channels-last weight beside
    moments that were saved contiguous would be updated with other elements' moments.)
    """
    state = dict(state)
    if "step" in state:
        optimizer.param_groups[0]["step"] = int(state.pop("step"))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    nested: dict[int, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        index, name = key.split(".", 1)
        like = parameters[int(index)]
        if tensor.shape == like.shape:
            tensor = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)
        nested.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": nested})
