"""Tests the replay, its error bound and the noise of the Triton operators."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from lord_fast.kernels import reference, replay_terms
from lord_fast.kernels.triton.noise import box_muller, words
from lord_fast.kernels.triton.replay import one_division, replay

BETA1, BETA2, TERMS = 0.5, 0.999, 29
RESOLUTION = 2.0**-24


@triton.jit
def one_division_kernel(
    out_ptr, lr_ptr, last_step_ptr, count_ptr,
    BETA1: tl.constexpr, BETA2: tl.constexpr, EPS: tl.constexpr, TERMS: tl.constexpr,
):  # fmt: skip
    last_step, count = tl.load(last_step_ptr), tl.load(count_ptr)
    size, floor, spread, least = one_division(last_step, count, lr_ptr, BETA1, BETA2, EPS, TERMS)
    tl.store(out_ptr, size)
    tl.store(out_ptr + 1, floor)
    tl.store(out_ptr + 2, spread)
    tl.store(out_ptr + 3, least)


@triton.jit
def replay_kernel(
    out_ptr, exp_avg_ptr, exp_avg_sq_ptr, lr_ptr, last_step_ptr, missed_ptr,
    EPS: tl.constexpr, TERMS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, BLOCK)
    moved, _, _ = replay(
        tl.zeros((BLOCK,), tl.float32), tl.load(exp_avg_ptr + column),
        tl.load(exp_avg_sq_ptr + column), tl.load(last_step_ptr), tl.load(missed_ptr),
        lr_ptr, 0.5, 0.999, EPS, TERMS,
    )  # fmt: skip
    tl.store(out_ptr + column, -moved)


@triton.jit
def words_kernel(out_ptr, counter_ptr, key_ptr):
    """The Philox words for a counter of noise id (64 bits), block and step."""
    noise_id, block = tl.load(counter_ptr), tl.load(counter_ptr + 1)
    a, b, c, d = words(noise_id, block, tl.load(counter_ptr + 2), tl.load(key_ptr))
    tl.store(out_ptr, a.to(tl.int64))
    tl.store(out_ptr + 1, b.to(tl.int64))
    tl.store(out_ptr + 2, c.to(tl.int64))
    tl.store(out_ptr + 3, d.to(tl.int64))


@triton.jit
def box_muller_kernel(out_ptr, a_ptr, b_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    cosine, sine = box_muller(tl.load(a_ptr + at).to(tl.uint32), tl.load(b_ptr + at).to(tl.uint32))
    tl.store(out_ptr + at, cosine)
    tl.store(out_ptr + BLOCK + at, sine)


def rates(kind: str, total: int) -> torch.Tensor:
    t = torch.arange(total)
    return {
        "constant": torch.full((total,), 1e-3),
        "falling": 1e-3 * 0.9 ** t.double(),
        "every-third": torch.where(t % 3 == 1, 1e-3, 0.0),
    }[kind].float()


def exact_sum(root, last_step: int, count: int, lr, eps: float):
    """The movement of elements with exp_avg 1 over missed steps, summed in float64."""
    moved = np.zeros_like(root)
    for j in range(1, count + 1):
        t = last_step + j
        exp_avg, second = BETA1**j / (1 - BETA1**t), BETA2**j / (1 - BETA2**t)
        moved += float(lr[t - 1]) * exp_avg / (root * np.sqrt(second) + eps)
    return moved


def launch_one_division(last_step, count, lr, eps):
    out = torch.full((4,), torch.nan)
    scalars = torch.tensor(last_step), torch.tensor(count)
    one_division_kernel[(1,)](out, lr, *scalars, BETA1, BETA2, eps, TERMS)
    return out.double().tolist()


CASES = [
    (last_step, missed, kind, eps)
    for last_step, missed in ((0, 1), (0, 7), (1, 2), (1, 40), (10, 40), (100, 3), (1000, 40))
    for kind, eps in (("constant", 1e-8), ("falling", 1e-8), ("every-third", 1e-3))
]


@pytest.mark.parametrize(("last_step", "missed", "kind", "eps"), CASES)
def test_one_division_is_accurate_above_its_bound(last_step, missed, kind, eps):
    lr, count = rates(kind, last_step + missed), min(missed, TERMS)
    size, floor, spread, least = launch_one_division(last_step, count, lr, eps)
    root = max(least, 0) + np.concatenate(([0], np.logspace(-12, 2, 200)))
    root = np.float32(root).astype(np.float64)
    exact = exact_sum(root, last_step, count, lr, eps)
    ours = size / (root + floor) * (1 + (spread / (root + floor)) ** 2)
    # The four numbers are float32, so their rounding adds to the bound.
    assert np.all(np.abs(ours - exact) <= 4 * RESOLUTION * exact)


def test_one_division_is_inaccurate_below_its_bound():
    lr = rates("constant", 41)
    size, floor, spread, least = launch_one_division(1, TERMS, lr, 1e-8)
    exact = exact_sum(np.zeros(1), 1, 40, lr, 1e-8)
    assert abs(size / floor * (1 + (spread / floor) ** 2) / exact[0] - 1) > 1e-3
    assert 0 < least < 1e-6  # gradients above about 3e-5 never enter the loop


@pytest.mark.parametrize("last_step", [1000, 20_000, 1_000_000])
def test_late_steps_never_need_the_loop(last_step):
    lr = rates("constant", last_step + 40)
    assert launch_one_division(last_step, TERMS, lr, 1e-8)[3] < 0


def launch_replay(exp_avg, root, last_step, missed, lr, eps):
    out = torch.full((len(root),), torch.nan)
    scalars = torch.tensor(last_step), torch.tensor(missed)
    replay_kernel[(1,)](out, exp_avg, root.square(), lr, *scalars, eps, TERMS, len(root))
    return out


@pytest.mark.parametrize(("last_step", "missed", "kind", "eps"), CASES)
def test_replay_on_both_sides_of_the_bound(last_step, missed, kind, eps):
    lr, count = rates(kind, last_step + missed), min(missed, TERMS)
    least = max(launch_one_division(last_step, count, lr, eps)[3], 1e-9)
    # The row has elements on both sides of the bound. Rounding does not move them across it.
    root = torch.tensor(least * np.concatenate((np.logspace(-4, 3, 126), (1 - 1e-6, 1 + 1e-6))))
    root = root.float().square().sqrt()
    exp_avg = torch.full_like(root, 1e-3)
    ours = launch_replay(exp_avg, root, last_step, missed, lr, eps)
    exact = 1e-3 * exact_sum(root.double().numpy(), last_step, missed, lr, eps)
    np.testing.assert_allclose(ours.numpy(), exact, rtol=6 * RESOLUTION, atol=0)


def test_the_loop_does_not_change_other_elements_of_the_row():
    lr, root = rates("constant", 41), torch.full((128,), 1e-3)
    exp_avg = torch.linspace(-1, 1, 128)
    alone = launch_replay(exp_avg, root, 1, 40, lr, 1e-8)
    root[5] = 1e-10
    beside = launch_replay(exp_avg, root, 1, 40, lr, 1e-8)
    assert torch.equal(alone[6:], beside[6:])
    assert beside[5] != alone[5]


def test_rows_without_momentum_do_not_move():
    lr, zeros = rates("constant", 41), torch.zeros(128)
    assert torch.equal(launch_replay(zeros, zeros, 0, 40, lr, 1e-8), zeros)


def test_terms():
    """The terms that a launch drops are below 2^-27 of the first term."""
    assert -(-replay_terms(BETA1, BETA2) * 7 // 8) == TERMS
    assert sum((BETA1 / BETA2**0.5) ** j for j in range(TERMS, 200)) < 2**-27


def test_philox_known_answers():
    """Test vectors from Random123's kat_vectors file for philox4x32 with 10 rounds."""
    ones, key = 0xFFFFFFFF, 0x299F31D0_A4093822
    for counter, seed, wanted in (
        ((0, 0, 0), 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((-1, ones, ones), -1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ((0x85A308D3_243F6A88 - 2**64, 0x13198A2E, 0x03707344), key,
         "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ):  # fmt: skip
        out = torch.zeros(4, dtype=torch.int64)
        words_kernel[(1,)](out, torch.tensor(counter), torch.tensor(seed))
        assert " ".join(f"{word:08x}" for word in out.tolist()) == wanted


def test_box_muller_equals_reference():
    """Uses random words, the smallest and largest radius and the borders of every quadrant."""
    block = 2**17
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randint(2**32, (2, block), generator=rng)
    edges = torch.tensor([0, 511, 512, 2**31, 2**32 - 513, 2**32 - 512, 2**32 - 1])
    turns = torch.arange(8) * 2**29
    borders = torch.cat((turns, turns + 256, (turns - 256) % 2**32, (turns - 1) % 2**32))
    pairs = torch.cartesian_prod(edges, borders)
    a[: len(pairs)], b[: len(pairs)] = pairs[:, 0], pairs[:, 1]

    out = torch.full((2, block), torch.nan)
    box_muller_kernel[(1,)](out, a, b, block)
    for ours, wanted in zip(out, reference.box_muller(a, b), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-6)
