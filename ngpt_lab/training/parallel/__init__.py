"""One run over several devices: the strategies fsdp2, tp and fsdp2+tp."""

from ngpt_lab.training.parallel.strategy import Sharded

__all__ = ["Sharded"]
