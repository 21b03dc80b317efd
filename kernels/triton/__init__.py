"""CUDA implementation, in Triton. Importing it imports Triton."""

from .latent import gather, scatter_adam_

__all__ = ["gather", "scatter_adam_"]
