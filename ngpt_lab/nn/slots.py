"""What an architecture is made of: its sizes, and one abstract class a slot. Parts are final: no part subclasses a part."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from ngpt_lab.errors import InputError

Parametrisation = Literal["ngpt-paper", "ngpt-short"]


@dataclass(frozen=True)
class Dims:
    """The sizes of a decoder.

    Args:
        vocab_size: number of token ids.
        d_model: width of the residual stream.
        n_layers: number of blocks.
        n_heads: number of query heads.
        n_kv_heads: number of key and value heads; divides `n_heads`.
        d_head: channels of a head; `n_heads * d_head` may differ from `d_model`.
        d_ff: hidden channels of the MLP.
        parametrisation: where nGPT's alpha and s_z start: `ngpt-paper`, or `ngpt-short` for runs of few steps or small
            width. Models without learned scales do not read it.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_ff: int
    parametrisation: Parametrisation = "ngpt-paper"

    def __post_init__(self) -> None:
        """Refuse sizes that make no decoder."""
        for name in ("vocab_size", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_head", "d_ff"):
            if getattr(self, name) < 1:
                raise InputError(f"dims.{name} is {getattr(self, name)}: it must be at least 1")
        if self.n_heads % self.n_kv_heads:
            raise InputError(
                f"dims.n_heads ({self.n_heads}) is not a multiple of dims.n_kv_heads ({self.n_kv_heads}): "
                "each key head serves the same number of query heads"
            )


class Part(nn.Module, ABC):
    """Something that fills a slot."""


class Residual(Part):
    """How a sublayer reads the residual stream and moves it."""

    @abstractmethod
    def read(self, x: Tensor) -> Tensor:
        """What the sublayer sees of the stream; (B, T, C) to (B, T, C)."""

    @abstractmethod
    def write(self, x: Tensor, y: Tensor) -> Tensor:
        """The stream `x` after the sublayer's output `y`; both (B, T, C)."""


class QKNorm(Part):
    """What happens to queries and keys after the rotation, and the softmax scale that belongs to it."""

    softmax_scale: float

    @abstractmethod
    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries (B, H, T, D) and keys (B, H_kv, T, D) to the same shapes."""


class Value(Part):
    """What happens to the values before attention."""

    @abstractmethod
    def forward(self, v: Tensor, first: Tensor) -> Tensor:
        """Values of this layer and of the first one, both (B, H_kv, T, D), to the values attended to."""


class MLP(Part):
    """The position-wise sublayer."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""


class Rotary(Part):
    """Position as a rotation of queries and keys."""

    @abstractmethod
    def table(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """What `rotate` needs for `positions` (B or 1, T): two tensors (B or 1, 1, T, any)."""

    @abstractmethod
    def rotate(self, x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        """Heads (B, H, T, D) turned by their positions' angles."""


class Final(Part):
    """What happens to the stream after the last block; task heads read its output too."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""


class LMHead(Part):
    """Logits as a product: `features @ matrix.T`."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The final stream (B, T, C) to features (B, T, C) and a matrix (V, C)."""

    @abstractmethod
    def logits(self, x: Tensor) -> Tensor:
        """The product: the final stream (B, T, C) to logits (B, T, V), in the matrix's dtype."""


ResidualFactory = Callable[[Dims, int], Residual]
QKNormFactory = Callable[[Dims, int], QKNorm]
ValueFactory = Callable[[Dims, int], Value]
MLPFactory = Callable[[Dims, int], MLP]
RotaryFactory = Callable[[Dims], Rotary]
FinalFactory = Callable[[Dims], Final]
LMHeadFactory = Callable[[Dims, nn.Parameter], LMHead]
