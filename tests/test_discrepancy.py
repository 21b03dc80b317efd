"""Tests of the penalty on content codes that tell the class."""

import json

import pytest
import torch
from torch import Tensor

from lord_fast.model import discrepancy
from lord_fast.model.discrepancy import WIDTHS, ClassDiscrepancy
from lord_fast.run.config import load_config
from tests.test_train import train
from tests.test_virtual_ranks import stage_of


def by_pairs(codes: Tensor, class_ids: Tensor, memory: Tensor, remembered: Tensor) -> float:
    """The definition, one pair after the other. Image i of the batch is image i of the memory."""
    pairs = [(i, j) for i in range(len(codes)) for j in range(len(memory)) if i != j]
    squares = {(i, j): float((codes[i] - memory[j]).square().sum()) for i, j in pairs}
    among = [(memory[i] - memory[j]).square().sum() for i in range(len(memory)) for j in range(i)]
    scale = float(sum(among)) / len(among)

    def mean_kernel(i: int, same: bool) -> float:
        chosen = [j for j in range(len(memory)) if (class_ids[i] == remembered[j]) == same]
        found = [
            torch.tensor([-squares[i, j] / (width * scale) for width in WIDTHS]).exp().mean()
            for j in chosen if j != i
        ]  # fmt: skip
        return float(sum(found)) / len(found)

    return sum(mean_kernel(i, True) - mean_kernel(i, False) for i in range(len(codes))) / len(codes)


def filled(codes: Tensor, class_ids: Tensor, batch: int = 4) -> ClassDiscrepancy:
    """Remember codes in batches."""
    made = ClassDiscrepancy(len(codes), batch, codes.shape[1])
    image_ids = torch.arange(len(codes))
    for step in range(len(codes) // batch):
        part = slice(step * batch, (step + 1) * batch)
        made.remember(codes[part], class_ids[part], image_ids[part], torch.tensor(step))
    return made


def test_it_equals_the_definition():
    torch.manual_seed(0)
    codes, classes = torch.randn(12, 5), torch.tensor([0, 1, 2] * 4)
    codes[classes == 1] += 1
    memory = codes + torch.randn(12, 5) / 10
    expected = by_pairs(codes[:6], classes[:6], memory, classes)
    assert expected > 0.02
    found = filled(memory, classes)(codes[:6], classes[:6], torch.arange(6))
    assert float(found) == pytest.approx(expected, abs=1e-6)


def test_it_is_zero_on_average_for_codes_without_a_class():
    torch.manual_seed(0)
    classes = torch.arange(4).repeat(8)

    def measure(codes: Tensor) -> Tensor:
        return filled(codes, classes)(codes[:8], classes[:8], torch.arange(8))

    found = torch.stack([measure(torch.randn(32, 6)) for _ in range(1000)])
    error = float(found.std() / len(found) ** 0.5)
    assert abs(float(found.mean())) < 4 * error
    assert float(measure(torch.randn(32, 6) + classes[:, None])) > 10 * float(found.std())


def test_an_image_without_a_comparison_counts_as_zero():
    codes = torch.randn(4, 3, requires_grad=True)
    classes, ids = torch.tensor([0, 0, 1, 2]), torch.arange(4)
    made = ClassDiscrepancy(4, 4, 3)
    assert made(codes, classes, ids).item() == 0  # The memory is empty.
    made.remember(codes, classes, ids, torch.tensor(0))
    made(codes, classes, ids).backward()
    assert codes.grad is not None
    assert codes.grad[:2].abs().min() > 0
    assert torch.equal(codes.grad[2:], torch.zeros(2, 3))  # The only images of their classes.


def test_the_memory_holds_the_newest_codes(monkeypatch):
    monkeypatch.setattr(discrepancy, "MOST_REMEMBERED", 8)
    codes, ids = torch.randn(12, 3), torch.arange(12)
    made = ClassDiscrepancy(100, 4, 3)
    for step in range(3):
        part = slice(4 * step, 4 * step + 4)
        made.remember(codes[part], ids[part] % 3, ids[part], torch.tensor(step))
    assert made.image_ids.tolist() == [8, 9, 10, 11, 4, 5, 6, 7]
    assert torch.equal(made.codes, codes[made.image_ids])
    assert torch.equal(made.class_ids, made.image_ids % 3)


def test_its_gradient_moves_the_codes_of_classes_together():
    torch.manual_seed(0)
    classes, ids = torch.tensor([0] * 8 + [1] * 8), torch.arange(16)
    codes = (torch.randn(16, 2) + 3 * classes[:, None]).requires_grad_()
    before = (codes[:8].mean(0) - codes[8:].mean(0)).norm().item()
    made = ClassDiscrepancy(16, 16, 2)
    optimizer = torch.optim.Adam([codes], lr=0.05)
    for step in range(200):
        made.remember(codes, classes, ids, torch.tensor(step))
        optimizer.zero_grad()
        made(codes, classes, ids).backward()
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


def test_the_memory_holds_the_codes_that_the_next_epoch_finds(glyph_store):
    """They have no noise, and Adam's first moment has moved them on after their update."""
    stage = stage_of(glyph_store, content_discrepancy=1.0)
    assert stage.settled.tolist() == [*range(10, 24), *[24] * 10]
    for step in range(10):
        stage.step(step)
    assert stage.discrepancy is not None
    ids = stage.discrepancy.image_ids
    assert sorted(ids.tolist()) == list(range(160))
    assert torch.equal(stage.discrepancy.class_ids, stage.store.class_ids[ids])
    found = stage.discrepancy.codes
    assert torch.equal(found[:16], stage.contents[0].codes(10)[ids[:16]])
    settled = stage.contents[0].codes(19)[ids]
    assert torch.allclose(found, settled, atol=2e-3)
    updated = stage.contents[0].codes(10)[ids]
    assert not torch.allclose(found[-16:], updated[-16:], atol=2e-3)


def test_codes_settle_before_the_end_of_each_schedule(glyph_store):
    """A run that is extended has the memory of one that was extended from the start."""
    stage = stage_of(glyph_store, content_discrepancy=1.0, steps=40, extended_from=(24,))
    assert stage.settled.tolist() == [*range(10, 24), *[24] * 10, *range(34, 40), *[40] * 10]
