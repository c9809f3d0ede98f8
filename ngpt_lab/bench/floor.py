"""The least time a training step can take on a machine: its matrix products at their peak, and the bytes nobody can save."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from ngpt_lab.bench.timing import clock
from ngpt_lab.errors import InputError
from ngpt_lab.models.decoder import Decoder
from ngpt_lab.models.flops import flops_per_token
from ngpt_lab.nn.product import product
from ngpt_lab.training.run_record import processor

# Bytes of an entry, by trainer.precision: of a stored weight, its gradient and moments; of what matrix products read.
WEIGHT_BYTES = {"32-true": 4, "bf16-mixed": 4, "bf16-true": 2}
PRODUCT_BYTES = {"32-true": 4, "bf16-mixed": 2, "bf16-true": 2}
PRODUCT_TYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "bf16-true": torch.bfloat16}
STREAM_BYTES = 4  # the residual stream is float32 in every precision

REPEATS = 5
LONG_ENOUGH = 0.5  # seconds of one product, after which no larger one is tried


@dataclass(frozen=True)
class Hardware:
    """What one processor can do.

    Args:
        name: what it is.
        flops: the most operations a second in matrix products, by trainer.precision.
        bandwidth: bytes a second between processor and memory.
        memory: bytes, where they are known.
    """

    name: str
    flops: Mapping[str, float]
    bandwidth: float
    memory: float | None = None


@dataclass(frozen=True)
class Floor:
    """The least seconds of a step, and what they are made of."""

    matmul_seconds: float
    bytes_seconds: float
    flops: float
    bytes: float

    @property
    def seconds(self) -> float:
        """Products and bytes, one after the other."""
        return self.matmul_seconds + self.bytes_seconds


def _published(name: str, float32: float, bfloat16: float, bandwidth: float, memory: float) -> Hardware:
    """One GPU from TFLOP/s, TB/s and GB."""
    flops = {of: 1e12 * (float32 if kind is torch.float32 else bfloat16) for of, kind in PRODUCT_TYPES.items()}
    return Hardware(name, flops, 1e12 * bandwidth, 1e9 * memory)


NAMED: dict[str, Hardware] = {
    "a100": _published("NVIDIA A100 SXM 80 GB", 19.5, 312, 2.039, 80),
    "h100": _published("NVIDIA H100 SXM", 67, 989.4, 3.35, 80),
    "h200": _published("NVIDIA H200 SXM", 67, 989.4, 4.8, 141),
    "b200": _published("NVIDIA HGX B200", 75, 2250, 7.7, 180),
    "l40s": _published("NVIDIA L40S", 91.6, 362.05, 0.864, 48),
    "rtx4090": _published("NVIDIA GeForce RTX 4090", 82.6, 165.2, 1.008, 24),
    "mi300x": _published("AMD Instinct MI300X", 163.4, 1307.4, 5.3, 192),
}
"""Published figures of one GPU, from the makers' data sheets: dense products, bfloat16 with float32 sums, float32 without
TF32, which torch does not use unless it is told to."""


def named(name: str) -> Hardware:
    """The hardware of a name.

    Raises:
        InputError: nobody wrote down its figures.
    """
    if name not in NAMED:
        raise InputError(f"the hardware is {name!r}: choose one of {', '.join(NAMED)}")
    return NAMED[name]


def measured(device: torch.device, threads: int) -> Hardware:
    """The rates of this machine: the fastest of several square matrix products and of several copies.

    On a CPU they are for `threads` threads in CPU time, so that what else runs on the machine does not count; torch is left at
    as many threads as it had.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rates = {kind: _product_rate(kind, device, threads) for kind in set(PRODUCT_TYPES.values())}
        bandwidth = _copy_rate(device, threads)
    finally:
        torch.set_num_threads(before)
    cuda = device.type == "cuda"
    return Hardware(
        torch.cuda.get_device_name(device) if cuda else processor(),
        {of: rates[kind] for of, kind in PRODUCT_TYPES.items()},
        bandwidth,
        float(torch.cuda.get_device_properties(device).total_memory) if cuda else None,
    )


def _product_rate(kind: torch.dtype, device: torch.device, threads: int) -> float:
    best = 0.0
    for size in (512, 1024, 2048) if device.type == "cpu" else (4096, 8192, 16384):
        a, b = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
        seconds = _least_seconds(partial(product, a, b), device, threads)
        best = max(best, 2 * size**3 / seconds)
        if seconds > LONG_ENOUGH:
            break
    return best


def _copy_rate(device: torch.device, threads: int) -> float:
    entries = 2**24 if device.type == "cpu" else 2**28  # 64 MiB and 1 GiB: more than any cache holds
    source = torch.zeros(entries, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _least_seconds(lambda: target.copy_(source), device, threads)


def _least_seconds(call: Callable[[], object], device: torch.device, threads: int) -> float:
    """Seconds of the fastest call; a GPU is timed over several, since to wait for it takes time too."""
    times, calls = [], 1 if device.type == "cpu" else 10
    for _ in range(1 + REPEATS):  # the first is there to warm up
        start = clock(device)
        for _ in range(calls):
            call()
        times.append((clock(device) - start) / calls)
    return min(times[1:]) / (threads if device.type == "cpu" else 1)


def floor(decoder: Decoder, seq_len: int, tokens: int, precision: str, hardware: Hardware) -> Floor:
    """The floor of one optimizer step on `tokens` tokens in sequences of `seq_len`; the decoder may be on the meta device.

    The operations are those of `flops_per_token`, at the peak rate of matrix products, which includes reading and writing
    their own operands. Whatever is done to single entries, or within a head, can be done where a product reads or writes them.
    What then remains for memory, with C channels, L layers, N parameters, V token ids, and s, p, w bytes of an entry of
    the stream (4), of a product's operand and of a stored weight:

    - the stream, which each of the 2 L sublayers must pass over once forward and once backward, since no tile of a product
      holds the whole vector that a norm needs: forward it reads x and the sublayer's output, and writes x and what the next
      product reads (2 s + 2 p); backward it reads x and two gradients and writes two (3 s + 2 p). Together 2 L C (5 s + 4 p)
      a token;
    - the embedding: rows read, stream written, its gradient read, C (w + 2 s) a token, and V C w for a dense gradient;
    - AdamW: weight and both moments read and written, gradient read, 7 w N, and where products read another type the copy
      for them, p N.

    The gradients' norm and the projection to the sphere need no pass of their own, and logits none at all. It is the same for
    all architectures of equal shape: that nGPT's residual needs the sublayer's output once more in its backward pass, 2 L C p
    a token, is left out, so that both are held to the same.

    Args:
        decoder: whose step.
        seq_len: tokens of a sequence.
        tokens: of one optimizer step.
        precision: as trainer.precision: 32-true, bf16-mixed or bf16-true.
        hardware: what it runs on.

    Raises:
        InputError: another precision.
    """
    if precision not in PRODUCT_BYTES:
        raise InputError(f"precision is {precision!r}, for which there is no floor: use one of {', '.join(PRODUCT_BYTES)}")
    flops = float(tokens * flops_per_token(decoder, seq_len))
    moved = float(unavoidable_bytes(decoder, tokens, precision))
    return Floor(flops / hardware.flops[precision], moved / hardware.bandwidth, flops, moved)


def unavoidable_bytes(decoder: Decoder, tokens: int, precision: str) -> int:
    """The bytes of `floor`."""
    weight, product, dims = WEIGHT_BYTES[precision], PRODUCT_BYTES[precision], decoder.dims
    parameters = sum(p.numel() for p in decoder.parameters())
    stream = tokens * 2 * dims.n_layers * dims.d_model * (5 * STREAM_BYTES + 4 * product)
    embedding = tokens * dims.d_model * (weight + 2 * STREAM_BYTES) + dims.vocab_size * dims.d_model * weight
    copy = parameters * product if product != weight else 0
    return stream + embedding + 7 * weight * parameters + copy
