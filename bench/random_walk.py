"""Measures how far SparseAdam and lord-fast's table end up from dense Adam.

    python bench/random_walk.py

At every step a few rows of a table get independent Gaussian gradients. All optimizers get the same
gradients and the same cosine schedule. The distance to dense Adam in float64 is divided by the
distance that dense Adam moved. Both are norms over the whole table.
"""

import torch
from torch import Tensor

from lord_fast import kernels
from lord_fast.model.latent import LatentTable
from lord_fast.model.schedule import cosine

ROWS, DIM, BATCH, STEPS, SEED = 500, 16, 8, 2000, 0
BETAS = (0.5, 0.999)


def batches():
    rng = torch.Generator().manual_seed(SEED)
    for _ in range(STEPS):
        rows = torch.randperm(ROWS, generator=rng)[:BATCH]
        yield rows, torch.randn(BATCH, DIM, generator=rng)


def embedding(start: Tensor, lr: Tensor, sparse: bool, dtype: torch.dtype) -> Tensor:
    table = torch.nn.Embedding(ROWS, DIM, sparse=sparse, _weight=start.to(dtype).clone())
    make = torch.optim.SparseAdam if sparse else torch.optim.Adam
    optimizer = make(table.parameters(), lr=1.0, betas=BETAS)
    for step, (rows, grad) in enumerate(batches()):
        table(rows).backward(grad.to(dtype))
        optimizer.param_groups[0]["lr"] = float(lr[step])
        optimizer.step()
        optimizer.zero_grad()
    return table.weight.detach().double()


def ours(lr: Tensor) -> tuple[Tensor, Tensor]:
    table = LatentTable(ROWS, DIM, lr, adam=kernels.Adam(*BETAS), seed=SEED)
    start = table.codes(0)
    for step, (rows, grad) in enumerate(batches()):
        now = torch.tensor(step)
        codes = table.gather(rows, now)
        codes.grad = grad
        table.scatter_adam_(rows, codes, now)
    return start, table.codes(STEPS).double()


def main() -> None:
    torch.set_num_threads(1)
    lr = cosine(3e-3, 1e-5, STEPS)
    start, end = ours(lr)
    exact = embedding(start, lr, False, torch.float64)
    found = {
        "dense Adam, float32": embedding(start, lr, False, torch.float32),
        f"lord-fast ({kernels.live('cpu')})": end,
        "SparseAdam, float64": embedding(start, lr, True, torch.float64),
    }
    way = (exact - start).norm()
    print(f"{STEPS} steps on {BATCH} of {ROWS} rows with {DIM} columns")
    print("distance to float64 dense Adam, relative to the distance that it moved:")
    for name, table in found.items():
        print(f"  {name:<28}{float((table - exact).norm() / way):9.1e}")


if __name__ == "__main__":
    main()
