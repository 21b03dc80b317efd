"""Tests the optimizer of the dense parameters with a fake of apex."""

import sys
import types

import pytest
import torch

from lord_fast.config import AdamConfig
from lord_fast.train import optimizer

LR = 1e-2
APEX = AdamConfig(optimizer="apex")


class FusedAdam(torch.optim.Optimizer):
    """Adam that counts its steps in the parameter group, like that of apex."""

    def __init__(self, params, lr, betas, eps, adam_w_mode):
        assert not adam_w_mode
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    def step(self):
        (group,) = self.param_groups
        group["step"] = group.get("step", 0) + 1
        (beta1, beta2), t = group["betas"], group["step"]
        for p in group["params"]:
            state = self.state[p]
            for name in ("exp_avg", "exp_avg_sq"):
                state.setdefault(name, torch.zeros_like(p))
            state["exp_avg"].lerp_(p.grad, 1 - beta1)
            state["exp_avg_sq"].lerp_(p.grad.square(), 1 - beta2)
            root = (state["exp_avg_sq"] / (1 - beta2**t)).sqrt() + group["eps"]
            p.data -= group["lr"] * state["exp_avg"] / (1 - beta1**t) / root


@pytest.fixture
def apex(monkeypatch):
    optimizers = types.ModuleType("apex.optimizers")
    optimizers.FusedAdam = FusedAdam
    monkeypatch.setitem(sys.modules, "apex.optimizers", optimizers)
    monkeypatch.setitem(sys.modules, "amp_C", types.ModuleType("amp_C"))


def test_missing_apex_is_an_error():
    with pytest.raises(ValueError, match=r"--optimizer apex: .*amp_C.*unrelated project"):
        optimizer.adam([torch.nn.Parameter(torch.zeros(2))], APEX, LR)


def run(config, resume_at=None, captured=False):
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(4, 3))
    adam = optimizer.adam([weight], config, LR, captured)
    for step in range(6):
        if step == resume_at:
            state = {name: tensor.clone() for name, tensor in optimizer.state_dict(adam).items()}
            adam = optimizer.adam([weight], config, LR, captured)
            optimizer.load_state_dict(adam, state)
        weight.grad = torch.sin(weight.detach() + step)
        optimizer.set_learning_rate(adam, LR)
        optimizer.step(adam)
    return weight.detach()


def test_apex_gives_the_same_updates(apex):
    wanted = run(AdamConfig())
    torch.testing.assert_close(run(APEX), wanted)


def test_the_learning_rate_of_a_cuda_graph_is_a_tensor():
    torch.testing.assert_close(run(AdamConfig(), captured=True), run(AdamConfig()))


@pytest.mark.parametrize("which", ["torch", "apex"])
def test_resuming_gives_the_same_updates(apex, which):
    config = AdamConfig(optimizer=which)
    assert torch.equal(run(config, resume_at=3), run(config))
