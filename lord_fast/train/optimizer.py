"""Adam for the dense parameters, with its state as named tensors."""

import importlib
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from lord_fast.config import AdamConfig


def adam(
    parameters: Iterable[nn.Parameter], config: AdamConfig, lr: float, captured: bool = False
) -> torch.optim.Optimizer:
    """Create the fused Adam of PyTorch or of apex.

    Args:
        parameters: The parameters to train.
        config: Betas, epsilon and implementation.
        lr: Initial learning rate.
        captured: Whether a CUDA graph may capture the step. apex does not support that.

    Raises:
        ValueError: --optimizer apex is given, but NVIDIA's apex is not installed.
    """
    betas = (config.beta1, config.beta2)
    if config.optimizer == "apex":
        make = _apex_fused_adam()
        return make(parameters, lr=lr, betas=betas, eps=config.eps, adam_w_mode=False)
    parameters = list(parameters)
    # A CUDA graph would freeze a learning rate that is a Python float. It rereads a tensor.
    lr_tensor = torch.tensor(lr, device=parameters[0].device)
    return torch.optim.Adam(
        parameters, lr_tensor if captured else lr, betas, config.eps,
        fused=True, capturable=captured and lr_tensor.is_cuda,
    )  # fmt: skip


def _apex_fused_adam() -> Callable[..., torch.optim.Optimizer]:
    try:
        importlib.import_module("amp_C")
        return importlib.import_module("apex.optimizers").FusedAdam
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"--optimizer apex: NVIDIA's apex with its CUDA extensions is needed ({error}); build "
            f"it from https://github.com/NVIDIA/apex (the package named apex on PyPI is an "
            f"unrelated project), or use --optimizer torch, the default"
        ) from error


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all later updates."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def step(optimizer: torch.optim.Optimizer) -> None:
    """Update the parameters and clear their gradients."""
    optimizer.step()
    optimizer.zero_grad()


def state_dict(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's state as INDEX.NAME -> tensor. It is empty before the first step."""
    found = {
        f"{index}.{name}": tensor
        for index, state in optimizer.state_dict()["state"].items()
        for name, tensor in state.items()
    }
    if "step" in optimizer.param_groups[0]:  # apex counts steps here
        found["step"] = torch.tensor(optimizer.param_groups[0]["step"])
    return found


def load_state_dict(optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    """Restore a state from `state_dict`, in the memory layout of the parameters.

    The fused kernel reads parameters and moments in storage order. If a weight were channels-last
    and its moments contiguous, it would update elements with the moments of others.
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
