"""The benchmark's flows, written for stock aiflows."""

from .reverse_atomic import ReverseAtomic
from .reverse_twice import ReverseTwice

__all__ = ["ReverseAtomic", "ReverseTwice"]
