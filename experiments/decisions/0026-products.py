"""float32 products by torch's two libraries on one thread of a CPU: python 0026-products.py ROUNDS.

Process CPU time of a product with its gradients, as a layer of a model has them; rounds interleave the libraries.
"""

import statistics
import sys
import time

import torch

from ngpt_lab.nn import product

# Tokens, and what goes into and comes out of the layer.
SHAPES = [
    (1, 512, 512),
    (64, 64, 64),
    (128, 128, 512),
    (2048, 128, 512),
    (2048, 512, 512),
    (2048, 2048, 512),
    (256, 512, 32000),
]


def seconds(x: torch.Tensor, weight: torch.Tensor, by_onednn: bool) -> float:
    """Of one of several calls."""
    product.MKL_IS_SLOW, product.WORTH_A_CALL = by_onednn, 0
    calls = 1 + 2**28 // (x.numel() * len(weight))
    begun = time.process_time()
    for _ in range(min(calls, 1000)):
        y = product.product(x, weight)
        torch.autograd.grad(y, (x, weight), y.detach())
    return (time.process_time() - begun) / min(calls, 1000)


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    for tokens, inputs, outputs in SHAPES:
        x, weight = (torch.randn(rows, inputs, requires_grad=True) for rows in (tokens, outputs))
        taken = [(seconds(x, weight, False), seconds(x, weight, True)) for _ in range(rounds + 1)][1:]
        mkl, onednn = (1e3 * statistics.median(side) for side in zip(*taken, strict=True))
        ratios = [b / a for a, b in taken]
        told = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}..{max(ratios):.2f}]"
        print(f"{tokens} x {inputs} -> {outputs}: MKL {mkl:.3f} ms, oneDNN {onednn:.3f} ms, ratio {told}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
