"""Modules: parameters and one op call each."""

from suffuse.nn.lru import LRU
from suffuse.nn.mamba import Mamba
from suffuse.nn.mamba2 import Mamba2
from suffuse.nn.rglru import RGLRU
from suffuse.nn.s4 import S4
from suffuse.nn.s4d import S4D
from suffuse.nn.s5 import S5

__all__ = ["LRU", "RGLRU", "S4", "S4D", "S5", "Mamba", "Mamba2"]
