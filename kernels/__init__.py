"""Kernels of the latent tables: dense Adam at sparse cost.

`ops` defines what they compute. `dispatch` selects the implementation that runs.
"""

from .dispatch import Choice, Live, live, use
from .ops import Adam, Table, gather, replay_terms, scatter_adam_

__all__ = [
    "Adam",
    "Choice",
    "Live",
    "Table",
    "gather",
    "live",
    "replay_terms",
    "scatter_adam_",
    "use",
]

use("auto")
