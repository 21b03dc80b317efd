"""Compares the two operators with dense Adam on the full table.

Dense Adam is `nn.Embedding` with `torch.optim.Adam`. Every test runs on the reference and on the
native kernels.
"""

import functools
import math

import pytest
import torch

from lord_fast.kernels import Adam, Table, gather, reference, replay_terms, scatter_adam_, use
from lord_fast.model.schedule import cosine

ADAM = Adam()


@pytest.fixture(autouse=True, params=["reference", "native"])
def implementation(request):
    use(request.param)
    yield request.param
    use("auto")


def new_table(n: int, dim: int, dtype=torch.float32, seed: int = 0) -> Table:
    weight = torch.empty(n, dim, dtype=torch.float64).uniform_(
        -0.05, 0.05, generator=torch.Generator().manual_seed(seed)
    )
    zeros = torch.zeros(n, dim, dtype=dtype)
    return Table(weight.to(dtype), zeros, zeros.clone(), torch.zeros(n, dtype=torch.int64))


def batches(n: int, batch: int, steps: int, seed: int = 1):
    """Yield rows with repeats, and gradient sizes from 1e-6 to 1."""
    rng = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(n, (batch,), generator=rng)
        yield rows, 10 ** torch.empty(batch, 1).uniform_(-6, 0, generator=rng)


def gradient(codes: torch.Tensor, size: torch.Tensor, step: int) -> torch.Tensor:
    """A gradient that depends on the code, so that errors would grow from step to step."""
    phase = torch.arange(codes.shape[1], dtype=codes.dtype) + step
    return size.to(codes.dtype) * (torch.sin(phase) + codes)


@functools.cache  # does not depend on the implementation
def dense(n, dim, batch, steps, adam, dtype):
    """The table and its Adam state after `steps` of nn.Embedding with dense torch.optim.Adam."""
    lr = cosine(3e-3, 1e-5, steps)
    embedding = torch.nn.Embedding(n, dim, dtype=dtype)
    embedding.weight.data.copy_(new_table(n, dim).weight)
    optimizer = torch.optim.Adam(
        embedding.parameters(), lr=1.0, betas=(adam.beta1, adam.beta2), eps=adam.eps
    )
    for step, (rows, size) in enumerate(batches(n, batch, steps)):
        codes = embedding(rows)
        codes.backward(gradient(codes.detach(), size, step))
        optimizer.param_groups[0]["lr"] = float(lr[step])
        optimizer.step()
        optimizer.zero_grad()
    return embedding.weight.detach(), optimizer.state[embedding.weight]


def sparse(table, lr, batch, steps, adam):
    """The table after `steps` of gather and scatter_adam_."""
    for step, (rows, size) in enumerate(batches(len(table.weight), batch, steps)):
        now = torch.tensor(step)
        codes = gather(table, rows, lr, now, adam=adam)
        scatter_adam_(table, rows, gradient(codes, size, step), lr, now, adam=adam)
    every = torch.arange(len(table.weight))
    return gather(table, every, lr, torch.tensor(steps), adam=adam)


@pytest.mark.parametrize(
    ("n", "dim", "batch", "steps", "adam"),
    [
        pytest.param(100, 6, 8, 2000, ADAM, id="published"),
        pytest.param(40, 3, 8, 300, Adam(0.9, 0.99), id="long-momentum"),
        pytest.param(40, 3, 8, 100, Adam(0.0, 0.999), id="no-momentum"),
        pytest.param(40, 3, 8, 300, Adam(eps=1e-3), id="large-eps"),
        pytest.param(20, 16, 64, 200, ADAM, id="every-row-repeated"),
    ],
)
def test_equals_dense_adam(n, dim, batch, steps, adam):
    lr = cosine(3e-3, 1e-5, steps)
    exact, _ = dense(n, dim, batch, steps, adam, torch.float64)
    rounded, _ = dense(n, dim, batch, steps, adam, torch.float32)
    table = new_table(n, dim)
    ours = sparse(table, lr, batch, steps, adam)

    own_error = (rounded - exact).abs().max().item()
    assert (ours - exact).abs().max().item() <= own_error
    moved = (exact - new_table(n, dim).weight).abs().max().item()
    assert moved > 1000 * own_error  # the table moved much further than the error


def test_moments_equal_dense_adam_in_float64():
    """Only the reference takes float64 tables."""
    use("reference")
    n, dim, batch, steps = 30, 4, 8, 200
    lr = cosine(3e-3, 1e-5, steps).double()
    exact, moments = dense(n, dim, batch, steps, ADAM, torch.float64)
    table = new_table(n, dim, torch.float64)
    table = table._replace(weight=new_table(n, dim).weight.double())
    sparse(table, lr, batch, steps, ADAM)
    now = reference.replay(*table, lr, torch.tensor(steps), *ADAM)
    torch.testing.assert_close(now[0], exact, rtol=0, atol=1e-12)
    torch.testing.assert_close(now[1], moments["exp_avg"], rtol=1e-9, atol=1e-20)
    torch.testing.assert_close(now[2], moments["exp_avg_sq"], rtol=1e-9, atol=1e-20)


def test_differs_from_sparse_adam():
    """A replay that does nothing would be SparseAdam, which skips the missed steps."""
    table = new_table(4, 2)
    lr = torch.full((10,), 1e-2)
    rows = torch.tensor([1])
    scatter_adam_(table, rows, torch.ones(1, 2), lr, torch.tensor(0), adam=ADAM)
    later = gather(table, rows, lr, torch.tensor(10), adam=ADAM)
    assert (table.weight[1] - later).min() > 1e-3


def test_gather_does_not_write():
    table = new_table(6, 5)
    lr = torch.full((10,), 1e-2)
    scatter_adam_(table, torch.tensor([1, 1, 4]), torch.ones(3, 5), lr, torch.tensor(0), adam=ADAM)
    before = [tensor.clone() for tensor in table]
    gather(table, torch.tensor([1, 0, 1]), lr, torch.tensor(7), adam=ADAM, std=1.0, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(before, table, strict=True))


def test_rows_outside_the_batch_stay_unchanged():
    table = new_table(6, 5)
    lr = torch.full((10,), 1e-2)
    scatter_adam_(table, torch.arange(6), torch.ones(6, 5), lr, torch.tensor(0), adam=ADAM)
    before = [tensor.clone() for tensor in table]
    rows = torch.tensor([5, 2, 5])
    scatter_adam_(table, rows, torch.ones(3, 5), lr, torch.tensor(4), adam=ADAM)
    for old, new in zip(before, table, strict=True):
        assert torch.equal(old[[0, 1, 3, 4]], new[[0, 1, 3, 4]])
        assert not torch.equal(old[[2, 5]], new[[2, 5]])
    assert table.last_step.tolist() == [1, 1, 5, 1, 1, 5]


def test_empty_batch():
    table = new_table(3, 2)
    lr = torch.full((10,), 1e-2)
    rows = torch.empty(0, dtype=torch.int64)
    assert gather(table, rows, lr, torch.tensor(2), adam=ADAM, std=1.0).shape == (0, 2)
    scatter_adam_(table, rows, torch.empty(0, 2), lr, torch.tensor(2), adam=ADAM)
    assert table.last_step.tolist() == [0, 0, 0]


def test_unique_gives_the_same_result_if_no_row_repeats():
    lr, rows, grad = torch.full((10,), 1e-2), torch.tensor([5, 0, 3]), torch.randn(3, 5)
    plain, unique = new_table(6, 5), new_table(6, 5)
    scatter_adam_(plain, rows, grad, lr, torch.tensor(4), adam=ADAM)
    scatter_adam_(unique, rows, grad, lr, torch.tensor(4), adam=ADAM, unique=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, unique, strict=True))


def test_replay_terms():
    assert replay_terms(0.5, 0.999) == 33
    assert replay_terms(0.0, 0.999) == 0
    for beta1, beta2 in ((0.9, 0.999), (0.9, 0.9), (0.99, 0.9999)):
        ratio = beta1 / math.sqrt(beta2)
        assert ratio ** replay_terms(beta1, beta2) < 2**-31.9
    with pytest.raises(ValueError, match="betas"):
        replay_terms(0.9, 0.8)


def philox(counter, key):
    words = reference.philox4x32_10(tuple(torch.tensor(c) for c in counter), key)
    return [f"{int(word):08x}" for word in words]


def test_philox_known_answers():
    """Test vectors from Random123's kat_vectors file for philox4x32 with 10 rounds."""
    ones = 0xFFFFFFFF
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert philox((0, 0, 0, 0), (0, 0)) == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    assert philox((ones,) * 4, (ones,) * 2) == ["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"]
    assert philox(pi, (0xA4093822, 0x299F31D0)) == ["d16cfe09", "94fdcceb", "5001e420", "24126ea1"]


def sample_noise(ids=4096, dim=96, step=5, seed=11):
    """The output of gather for codes of 0, which is the noise."""
    zeros = torch.zeros(ids, dim)
    table = Table(zeros, zeros, zeros, torch.zeros(ids, dtype=torch.int64))
    now, lr = torch.tensor(step), torch.ones(10)
    return gather(table, torch.arange(ids), lr, now, adam=ADAM, std=1.0, seed=seed)


def test_noise_is_gaussian():
    values = sample_noise().double().flatten()
    count = len(values)
    assert abs(values.mean()) < 4 / math.sqrt(count)
    assert abs(values.var() - 1) < 4 * math.sqrt(2 / count)
    assert abs((values**4).mean() - 3) < 4 * math.sqrt(96 / count)
    assert values.abs().max() < 5.8


def correlation(a, b):
    return torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1].abs().item()


def test_noise_is_independent_across_rows_steps_seeds_and_elements():
    values = sample_noise()
    limit = 4 / math.sqrt(values.numel() / 2)
    assert correlation(values[:-1], values[1:]) < limit
    assert correlation(values[:, :-1], values[:, 1:]) < limit
    assert correlation(values, sample_noise(step=6)) < limit
    assert correlation(values, sample_noise(seed=12)) < limit
    assert correlation(values**2, sample_noise(step=6) ** 2) < limit


def test_noise_depends_only_on_its_id():
    table = new_table(50, 7)
    lr = torch.full((10,), 1e-2)
    now = torch.tensor(3)
    rows = torch.tensor([4, 9, 4, 30])
    codes = gather(table, rows, lr, now, adam=ADAM, std=2.0, seed=1)
    flipped = gather(table, rows.flip(0), lr, now, adam=ADAM, std=2.0, seed=1)
    assert torch.equal(codes, flipped.flip(0))
    assert torch.equal(codes[0], codes[2])
    ids = rows + 10**10
    other = gather(table, rows, lr, now, adam=ADAM, std=2.0, seed=1, noise_ids=ids)
    wanted = table.weight[rows] + 2 * reference.noise(ids, 7, now, 1)
    torch.testing.assert_close(other, wanted)
    assert not torch.allclose(other, codes)
