"""A trained model as an object."""

from lord_fast.lord.lord import Lord
from lord_fast.lord.read import fill

__all__ = ["Lord", "fill"]
