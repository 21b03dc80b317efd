"""Tests of the penalty on content codes that tell the class."""

import json

import pytest
import torch

from lord_fast.model.discrepancy import WIDTHS, class_discrepancy
from lord_fast.run.config import load_config
from tests.test_train import train


def by_pairs(codes: torch.Tensor, classes: torch.Tensor) -> float:
    """The definition, one pair after the other."""
    n = len(codes)
    squares = {
        (i, j): float((codes[i] - codes[j]).square().sum())
        for i in range(n) for j in range(n) if i != j
    }  # fmt: skip
    scale = sum(squares.values()) / len(squares)
    kernels: dict[bool, list[float]] = {True: [], False: []}
    for (i, j), square in squares.items():
        value = sum(float(torch.exp(torch.tensor(-square / (w * scale)))) for w in WIDTHS) / len(
            WIDTHS
        )
        kernels[bool(classes[i] == classes[j])].append(value)
    return sum(kernels[True]) / len(kernels[True]) - sum(kernels[False]) / len(kernels[False])


def test_it_equals_the_definition():
    torch.manual_seed(0)
    codes, classes = torch.randn(12, 5), torch.tensor([0, 1, 2] * 4)
    codes[classes == 1] += 1
    expected = by_pairs(codes, classes)
    assert expected > 0.02
    assert float(class_discrepancy(codes, classes)) == pytest.approx(expected, abs=1e-6)


def test_it_is_zero_on_average_for_codes_without_a_class():
    torch.manual_seed(0)
    classes = torch.arange(4).repeat(8)
    found = torch.stack([class_discrepancy(torch.randn(32, 6), classes) for _ in range(2000)])
    error = float(found.std() / len(found) ** 0.5)
    assert abs(float(found.mean())) < 4 * error
    shifted = torch.randn(32, 6) + classes[:, None]
    assert float(class_discrepancy(shifted, classes)) > 10 * float(found.std())


@pytest.mark.parametrize("classes", [[0, 1, 2, 3], [0, 0, 0, 0]])
def test_a_batch_without_pairs_of_both_kinds_gives_zero(classes):
    codes = torch.randn(4, 3, requires_grad=True)
    found = class_discrepancy(codes, torch.tensor(classes))
    found.backward()
    assert found.item() == 0
    assert torch.equal(codes.grad, torch.zeros_like(codes))


def test_its_gradient_moves_the_codes_of_classes_together():
    torch.manual_seed(0)
    classes = torch.tensor([0] * 8 + [1] * 8)
    codes = (torch.randn(16, 2) + 3 * classes[:, None]).requires_grad_()
    before = (codes[:8].mean(0) - codes[8:].mean(0)).norm().item()
    optimizer = torch.optim.Adam([codes], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        class_discrepancy(codes, classes).backward()
        optimizer.step()
    assert (codes[:8].mean(0) - codes[8:].mean(0)).norm().item() < before / 4


def test_the_flag_trains_and_is_fixed_for_a_run(glyph_store, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(glyph_store, run, "--content-discrepancy", "1") == 0
    assert load_config(run / "config.yaml")[0].loss.content_discrepancy == 1
    assert train(glyph_store, tmp_path / "plain") == 0
    last = [
        json.loads((folder / "stats.jsonl").read_text().splitlines()[-1])["content_penalty"]
        for folder in (run, tmp_path / "plain")
    ]
    assert last[0] != last[1]
    assert train(glyph_store, run, "--content-discrepancy", "2") == 2
    assert "--content-discrepancy" in capsys.readouterr().err
