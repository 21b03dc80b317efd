"""Kernels of the latent tables, which are dense Adam at sparse cost, and of the AdaIN layers.

`ops` defines what they compute. `dispatch` selects the implementation that runs.
"""

from .adain import fuses_adain, leaky_adain
from .dispatch import Choice, Live, live, probe, use
from .ops import Adam, Table, gather, replay_terms, scatter_adam_

__all__ = [
    "Adam",
    "Choice",
    "Live",
    "Table",
    "fuses_adain",
    "gather",
    "leaky_adain",
    "live",
    "probe",
    "replay_terms",
    "scatter_adam_",
    "use",
]

use("auto")
