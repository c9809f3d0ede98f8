"""The bytes that live tensors hold, by what they are: counted op by op, so fake tensors do as well as real ones."""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# What depends on the parameters alone: their copies in autocast's dtype, matrices with a scale folded in.
DERIVED = "matrices as used"


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of every storage that an op makes, from then until it is freed.

    `peak` is the largest sum so far, `live` what there is now by label; set `label` to say what comes next.

    Args:
        parameters: held all along, as `weights`.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        super().__init__()
        self.live: Counter[str] = Counter()
        self.peak, self.label, self._sum = 0, "", 0
        self._labels: dict[int, str] = {}
        for parameter in parameters:
            self._count(parameter, "weights")

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Carry the op out and count what it made."""
        result = func(*args, **(kwargs or {}))
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if any(key(tensor) not in self._labels for tensor in made):
            read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            derived = bool(read) and all(self._labels.get(key(tensor)) in ("weights", DERIVED) for tensor in read)
            for tensor in made:
                self._count(tensor, DERIVED if derived else self.label)
        return result

    def restart(self) -> None:
        """Look for the peak from here on."""
        self.peak = self._sum

    def relabel(self, tensors: Iterable[Tensor], label: str) -> None:
        """Call the storages of `tensors` by `label` from now on."""
        for tensor in tensors:
            at, size = key(tensor), tensor.untyped_storage().nbytes()
            self.live[self._labels[at]] -= size
            self.live[label] += size
            self._labels[at] = label

    def _count(self, tensor: Tensor, label: str) -> None:
        storage, at = tensor.untyped_storage(), key(tensor)
        if at in self._labels:
            return
        size = storage.nbytes()
        self._labels[at] = label
        self.live[label] += size
        self._sum += size
        self.peak = max(self.peak, self._sum)
        weakref.finalize(storage, self._free, at, size)

    def _free(self, at: int, size: int) -> None:
        self.live[self._labels.pop(at)] -= size
        self._sum -= size


def key(tensor: Tensor) -> int:
    """What tells a live tensor's storage from every other."""
    return tensor.untyped_storage()._cdata
