"""The two operators on a latent table, with their shapes and public API, and all schemas.

Dense Adam (Kingma & Ba, 2015, algorithm 1) moves every row at every step, because a row outside
the batch still follows its decaying momentum. These operators give the same result but touch only
the rows of the batch. Each row stores the step of its last update, and the steps that it missed
are replayed when it is next used. The learning rate of every step must therefore be known.

Both operators are registered in PyTorch's dispatcher as `lord_fast::gather` and
`lord_fast::scatter_adam_`. The reference runs on any device. Native code overrides it on the CPU
and Triton overrides it on CUDA (see `lord_fast.kernels.use`).
"""

import functools
import math
import os
from typing import NamedTuple

import torch
from torch import Tensor

GATHER = (
    "gather(Tensor weight, Tensor exp_avg, Tensor exp_avg_sq, Tensor last_step, Tensor rows, "
    "Tensor lr, Tensor step, Tensor noise_ids, float std, int seed, float beta1, float beta2, "
    "float eps) -> Tensor"
)
SCATTER_ADAM = (
    "scatter_adam_(Tensor(a!) weight, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq, "
    "Tensor(d!) last_step, Tensor rows, Tensor grad, Tensor lr, Tensor step, float beta1, "
    "float beta2, float eps, bool unique=False, Tensor? by_row=None) -> ()"
)
LEAKY_ADAIN = (
    "leaky_adain(Tensor x, Tensor added, Tensor bias, Tensor scale, float slope, float eps) -> "
    "(Tensor, Tensor, Tensor)"
)
LEAKY_ADAIN_BACKWARD = (
    "leaky_adain_backward(Tensor grad, Tensor x, Tensor added, Tensor scale, Tensor mean, "
    "Tensor rstd, float slope) -> (Tensor, Tensor, Tensor, Tensor)"
)
DEBUG = os.environ.get("LORD_FAST_DEBUG", "0") not in ("", "0")
"""Whether row numbers are checked on every device. Set LORD_FAST_DEBUG=1 to find a wrong one. On
CUDA this waits for the device at every call, so a step with it cannot be captured."""
_library = torch.library.Library("lord_fast", "DEF")
_library.define(GATHER)
_library.define(SCATTER_ADAM)
_library.define(LEAKY_ADAIN)
_library.define(LEAKY_ADAIN_BACKWARD)


@torch.library.register_fake("lord_fast::gather", lib=_library)
def _gather_fake(weight: Tensor, *args, **kwargs) -> Tensor:
    rows = args[3]
    return weight.new_empty(rows.shape[0], weight.shape[1])


@torch.library.register_fake("lord_fast::scatter_adam_", lib=_library)
def _scatter_adam_fake(*args, **kwargs) -> None:
    return None


@functools.cache
def replay_terms(beta1: float, beta2: float) -> int:
    """The number of missed zero-gradient steps that can still move a float32 row.

    The j-th missed step moves a row by at most (beta1 / sqrt(beta2))^j times the movement of the
    first. Terms below 2^-32 of the first are dropped.

    Args:
        beta1: Decay of the first moment, 0 <= beta1 < sqrt(beta2).
        beta2: Decay of the second moment, 0 < beta2 < 1.

    Returns:
        Number of terms, which is 33 for the published betas (0.5, 0.999).

    Raises:
        ValueError: The betas are outside these bounds, so the sum would not converge.
    """
    if not (0 <= beta1 < 1 and 0 < beta2 < 1 and beta1 < math.sqrt(beta2)):
        raise ValueError(f"betas ({beta1}, {beta2}): need 0 <= beta1 < sqrt(beta2) < 1")
    if beta1 == 0:
        return 0
    return math.ceil(32 * math.log(2) / math.log(math.sqrt(beta2) / beta1))


def require_columns(weight: Tensor) -> None:
    """Refuse a table [N, 0].

    Raises:
        ValueError: rows of the table have no elements.
    """
    if weight.shape[1] == 0:
        raise ValueError(f"weight {list(weight.shape)}: a latent table needs at least one column")


def check_rows(weight: Tensor, rows: Tensor) -> None:
    """Check that rows are in the table. PyTorch would count negative rows from the end.

    Raises:
        IndexError: A row is not in the table. The error names the first one.
    """
    outside = (rows < 0) | (rows >= len(weight))
    if bool(outside.any()):
        wrong = int(rows[outside][0])
        raise IndexError(f"rows: {wrong} is outside the table, which has {len(weight)} rows")


class Table(NamedTuple):
    """The state of a latent table.

    Attributes:
        weight: float32 [N, D]. Row i is up to date as of `last_step[i]`.
        exp_avg: First moment, float32 [N, D].
        exp_avg_sq: Second moment, float32 [N, D].
        last_step: Number of updates applied to each row, int64 [N].
    """

    weight: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    last_step: Tensor


class Adam(NamedTuple):
    """Adam's constants. `replay_terms` states the bounds of the betas.

    Attributes:
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        eps: Added to the square root of the second moment.
    """

    beta1: float = 0.5
    beta2: float = 0.999
    eps: float = 1e-8


def gather(
    table: Table,
    rows: Tensor,
    lr: Tensor,
    step: Tensor,
    *,
    adam: Adam,
    std: float = 0.0,
    seed: int = 0,
    noise_ids: Tensor | None = None,
) -> Tensor:
    """Read rows as dense Adam would have them after `step` updates, and add noise.

    The noise is Philox4x32-10 (Salmon et al., 2011) with key = `seed` and counter = (noise id,
    element / 4, step), passed through Box-Muller. It depends only on the seed, the image and the
    step, not on the order of the batch, the implementation or the number of processes.

    Args:
        table: The state, which is only read. No `last_step` may exceed `step`.
        rows: Rows to read, int64 [B], 0 <= rows < N. Rows may repeat.
        lr: Learning rate of every update, float32 [total_steps].
        step: Number of updates done so far, int64 scalar on the table's device.
        adam: Adam's constants.
        std: Standard deviation of the noise. 0 adds no noise.
        seed: Key of the noise, 0 <= seed < 2^63.
        noise_ids: Global ids that the noise depends on, int64 [B]. Defaults to `rows`.

    Returns:
        float32 [B, D].

    Raises:
        ValueError: the table has no columns.
        IndexError: a row is not in the table. CUDA with Triton checks that only in `DEBUG` mode.
    """
    require_columns(table.weight)
    if DEBUG:
        check_rows(table.weight, rows)
    noise_ids = rows if noise_ids is None else noise_ids
    return torch.ops.lord_fast.gather(*table, rows, lr, step, noise_ids, std, seed, *adam)


def scatter_adam_(
    table: Table,
    rows: Tensor,
    grad: Tensor,
    lr: Tensor,
    step: Tensor,
    *,
    adam: Adam,
    unique: bool = False,
    by_row: Tensor | None = None,
) -> None:
    """Apply one dense-Adam update, touching only the rows of the batch.

    For each row in `rows` it replays the missed steps up to `step`, sums the gradients of
    repeated rows in an order that depends only on `rows`, applies Adam with `lr[step]` and sets
    `last_step` to `step` + 1. All other rows stay bitwise unchanged.

    Args:
        table: The state, updated in place. No `last_step` may exceed `step`.
        rows: Rows to update, int64 [B]. Rows may repeat.
        grad: Gradients of the gathered codes, float32 [B, D].
        lr: Learning rate of every update, float32 [total_steps].
        step: Number of updates done so far, int64 scalar on the table's device, < total_steps.
        adam: Adam's constants.
        unique: Set to True only if no row repeats. CUDA then skips a sort. If a row repeats
            anyway, CUDA leaves undefined values in that row and reports no error, because
            checking would cost the sort. Other rows are not affected. The CPU kernels and the
            reference ignore this flag and always sum repeated rows.
        by_row: The rows in ascending order and the batch position of each, as a stable sort gives
            them, int64 [2, B]. CUDA then skips the sort. The CPU kernels and the reference ignore
            it.

    Raises:
        ValueError: The table has no columns.
        IndexError: A row is not in the table. CUDA with Triton checks that only in `DEBUG` mode.
    """
    require_columns(table.weight)
    if DEBUG:
        check_rows(table.weight, rows)
    torch.ops.lord_fast.scatter_adam_(*table, rows, grad, lr, step, *adam, unique, by_row)
