"""What several processes do together: where it fails on one it fails on all, and none is left waiting for another."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from ngpt_lab.errors import InputError

T = TypeVar("T")


def together(work: Callable[[], T]) -> list[T]:
    """What each process makes of its work; every process calls it. One process without others just does it.

    Raises:
        InputError: the work of another failed.
        Exception: this process's own work failed.
    """
    if not in_company():
        return [work()]
    made: T | None = None
    own: Exception | None = None
    try:
        made = work()
    except Exception as error:
        own = error
    said: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(said, (made, None if own is None else as_told(own)))
    if own is not None:
        raise own
    for _, failure in said:
        if failure is not None:
            raise failure
    return [each for each, _ in said]


def first_alone(work: Callable[[], object]) -> None:
    """Let the first process do something; every process calls it. Errors as those of `together`."""
    is_first = not in_company() or dist.get_rank() == 0
    together(lambda: work() if is_first else None)


def as_told(error: Exception) -> InputError:
    """What the others are told of one process's error: the same sentence, where it is one."""
    if isinstance(error, InputError):
        return error
    return InputError(f"process {dist.get_rank()} failed: {str(error) or type(error).__name__}")


def in_company() -> bool:
    """Whether this process is one of several."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class Sum:
    """A few numbers of all processes, added up, on their way from the device.

    Nothing waits until they are read, and then only for what the device had to do before them.

    Args:
        values: this process's, in one dimension; changed in place.
    """

    def __init__(self, values: Tensor) -> None:
        self._event = None
        self._processes = 1
        if in_company():
            self._processes = dist.get_world_size()
            dist.all_reduce(values)  # Lightning's own adds a barrier, for which the device is waited for
        self._values = values
        if values.is_cuda:
            self._values = torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def numbers(self) -> list[float]:
        """The sums."""
        if self._event is not None:
            self._event.synchronize()
        numbers: list[float] = self._values.tolist()
        return numbers

    def means(self) -> list[float]:
        """The sums, divided by how many processes there are."""
        return [number / self._processes for number in self.numbers()]
