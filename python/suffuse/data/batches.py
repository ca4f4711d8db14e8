"""Endless shuffled batches of tensors that are in memory."""

from __future__ import annotations

import torch
from torch import Tensor


class Batches:
    """Batches of `batch_size` rows, in an order that depends on `seed` and the epoch alone.

    tensors: with a common first dimension. Each epoch is shuffled anew; the rows left over at its
    end that fill no batch are skipped. The place in the data is (seed, epoch, position).

    Raises ValueError for no tensors, unequal lengths, or a batch larger than the data.
    """

    def __init__(self, tensors: tuple[Tensor, ...], *, batch_size: int, seed: int) -> None:
        lengths = [len(tensor) for tensor in tensors]
        if len(set(lengths)) != 1:
            raise ValueError(f"Batches: tensors have lengths {lengths}, expected one common length")
        if not 1 <= batch_size <= lengths[0]:
            raise ValueError(f"Batches: batch_size is {batch_size}, expected 1 to {lengths[0]}")
        self.tensors, self.batch_size, self.seed = tensors, batch_size, seed
        self.epoch, self.position = 0, 0
        self._order = self._shuffle()

    def next(self) -> tuple[Tensor, ...]:
        """The next batch, one tensor for each of `tensors`."""
        if self.position + self.batch_size > len(self._order):
            self.epoch, self.position = self.epoch + 1, 0
            self._order = self._shuffle()
        rows = self._order[self.position : self.position + self.batch_size]
        self.position += self.batch_size
        return tuple(tensor[rows] for tensor in self.tensors)

    def state_dict(self) -> dict[str, int]:
        """Where the next batch comes from."""
        return {**self._identity(), "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a stored place. Raises ValueError for one in other data or another order."""
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise ValueError(
                    f"Batches: {name} is {value}, expected {state.get(name)} as stored"
                )
        self.epoch, self.position = state["epoch"], state["position"]
        self._order = self._shuffle()

    def _identity(self) -> dict[str, int]:
        return {"seed": self.seed, "rows": len(self.tensors[0]), "batch_size": self.batch_size}

    def _shuffle(self) -> Tensor:
        # Seeds of neighbouring epochs and runs are spread apart, as generators are weak in that.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return torch.randperm(len(self.tensors[0]), generator=generator)
