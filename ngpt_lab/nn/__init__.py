"""Parts that belong to no architecture."""

from ngpt_lab.nn.slots import Dims

__all__ = ["Dims"]
