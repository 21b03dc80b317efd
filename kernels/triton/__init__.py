"""The CUDA implementation in Triton. Importing this package imports Triton."""

from .adain import leaky_adain, leaky_adain_backward
from .latent import gather, scatter_adam_

__all__ = ["gather", "leaky_adain", "leaky_adain_backward", "scatter_adam_"]
