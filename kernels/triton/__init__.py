"""The CUDA implementation in Triton. Importing this package imports Triton."""

from .latent import gather, scatter_adam_

__all__ = ["gather", "scatter_adam_"]
