"""Room for the keys and values of a text whose longest length is known."""

import torch
from torch import Tensor

from ngpt_lab.errors import InputError


class FixedCache:
    """A cache that makes its room once and writes in place; what it returns are views of it.

    Args:
        length: how many positions it has room for.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._held: list[int] = []

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """See `Cache` of ngpt_lab.nn.attention; layers come in their order.

        Raises:
            InputError: there is no room for as many, or no memory to make it.
        """
        if layer_idx == len(self._layers):
            self._layers.append((self._room(key_states), self._room(value_states)))
            self._held.append(0)
        keys, values = self._layers[layer_idx]
        start = self._held[layer_idx]
        end = start + key_states.shape[-2]
        if end > self.length:
            raise InputError(f"the cache has room for {self.length} positions and would hold {end}: make it longer")
        self._held[layer_idx] = end
        keys[:, :, start:end], values[:, :, start:end] = key_states, value_states
        return keys[:, :, :end], values[:, :, :end]

    def get_seq_length(self) -> int:
        """See `Cache` of ngpt_lab.nn.attention."""
        return self._held[0] if self._held else 0

    def _room(self, states: Tensor) -> Tensor:
        batch, heads, _, channels = states.shape
        try:
            return torch.empty(batch, heads, self.length, channels, dtype=states.dtype, device=states.device)
        except RuntimeError as error:
            raise InputError(f"there is no memory for a cache of {self.length} positions: ask for fewer new tokens") from error
