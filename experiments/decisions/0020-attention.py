"""Attention functions of a CPU against torch's own: python 0020-attention.py bf16|fp32 LENGTH ROUNDS [c to compile].

Process CPU time of attention alone, forward and backward, of 8 heads of 64 channels; rounds interleave the functions.
"""

import statistics
import sys
import time

import torch

from ngpt_lab.nn.attend import ATTENTION
from ngpt_lab.nn.attend_function import Attend, AttentionFunction

NAMES = ("sdpa", "eager", "blocked")


def function(name: str, compiled: bool) -> Attend:
    chosen = ATTENTION[name]
    assert isinstance(chosen, AttentionFunction)
    compute = chosen.compute
    return torch.compile(lambda *arguments: compute(*arguments), fullgraph=True) if compiled else compute


def main(dtype: str, length: int, rounds: int, compiled: bool) -> None:
    torch.set_num_threads(1)
    shape, kind = (4 if length < 1024 else 1, length, 8, 64), {"bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
    q, k, v = (torch.randn(shape, dtype=kind).transpose(1, 2).requires_grad_() for _ in range(3))
    gradient, seconds = torch.randn_like(q), {name: list[float]() for name in NAMES}
    functions = {name: function(name, compiled) for name in NAMES}
    for number in range(-2, rounds):
        for name, attend in functions.items():
            begun = time.process_time()
            torch.autograd.grad(attend(q, k, v, None, 1 / 8, 0.0), (q, k, v), gradient)
            if number >= 0:
                seconds[name].append(time.process_time() - begun)
    for name, taken in seconds.items():
        ratios = [a / b for a, b in zip(taken, seconds["sdpa"], strict=True)]
        told = f"{1e3 * statistics.median(taken):.1f} ms, {statistics.median(ratios):.3f} of sdpa's"
        print(f"{dtype} {tuple(q.shape)} {name}: {told} [{min(ratios):.3f}..{max(ratios):.3f}]")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), "c" in sys.argv[4:])
