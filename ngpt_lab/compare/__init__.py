"""Train arms on the same batches under the same rules, and report which is better."""

from ngpt_lab.compare.command import main

__all__ = ["main"]
