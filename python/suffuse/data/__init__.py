"""Data sets and the order in which they are read."""

from suffuse.data.batches import Batches
from suffuse.data.digits import Pictures, load_digits

__all__ = ["Batches", "Pictures", "load_digits"]
