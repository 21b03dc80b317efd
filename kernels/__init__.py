"""Kernels of the latent tables: dense Adam at sparse cost. See `ops` for what they compute."""

import torch

from . import reference
from .ops import Adam, Table, gather, replay_terms, scatter_adam_

__all__ = ["Adam", "Table", "gather", "replay_terms", "scatter_adam_"]

_reference = torch.library.Library("lord_fast", "IMPL", "CompositeExplicitAutograd")
_reference.impl("gather", reference.gather)
_reference.impl("scatter_adam_", reference.scatter_adam_)
