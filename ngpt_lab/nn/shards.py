"""Parameters of which each process holds a part."""

from torch import Tensor


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor that several share, a DTensor; any other tensor as it is."""
    # DTensor is slow to import, and most runs have none.
    return tensor.to_local() if hasattr(type(tensor), "to_local") else tensor  # type: ignore[attr-defined]
