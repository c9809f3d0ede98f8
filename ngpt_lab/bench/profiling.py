"""torch's profiler around one call: the most memory it takes, and its time by kind of kernel."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

# The first pattern that a kernel's name matches says what kind it is; on a CPU the names are those of operators.
KINDS = {
    "attention": r"attention|flash|fmha|softmax",
    "products": r"gemm|cutlass|xmma|nvjet|cublas|mkldnn|aten::(add)?(b|baddb)?mm|aten::linear|matmul",
    "optimizer": r"adam|multi_tensor|foreach",
    "compiled": r"triton|cpp_fused|compiled|inductor",
}
REST = "the rest"


def peak_growth(device: torch.device, call: Callable[[], object]) -> int:
    """The most bytes of `device` that are allocated at once during a call, beyond those that were before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    seen = profiled(call, activities=[ProfilerActivity.CPU], profile_memory=True)
    profiler: Any = seen.profiler
    changes = [event for event in profiler.kineto_results.events() if event.name() == "[memory]"]
    held = highest = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        held += change.nbytes()
        highest = max(highest, held)
    return highest


def kernel_shares(device: torch.device, call: Callable[[], object]) -> dict[str, float]:
    """The share of a call's time by kind of kernel; on a CPU of wall time, whatever else runs there."""
    cuda = device.type == "cuda"

    def all_of_it() -> None:
        call()
        if cuda:
            torch.cuda.synchronize(device)

    seen = profiled(all_of_it, activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU])
    times = dict.fromkeys((*KINDS, REST), 0.0)
    for event in seen.key_averages():
        times[kind_of(event.key)] += float(event.self_device_time_total if cuda else event.self_cpu_time_total)
    total = sum(times.values()) or 1.0
    return {kind: time / total for kind, time in times.items()}


def kind_of(kernel: str) -> str:
    """What kind of kernel a name belongs to."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, kernel, re.IGNORECASE)), REST)


def profiled(call: Callable[[], object], **settings: Any) -> profile:
    """torch's profiler after a call."""
    seen = profile(**settings, acc_events=True)  # torch 2.11 warns of what this asks for
    with _without_stderr():
        seen.start()
    call()
    with _without_stderr():
        seen.stop()
    return seen


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Nothing that this process writes to its standard error arrives: torch 2.13 tells of every profile there."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
