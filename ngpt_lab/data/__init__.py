"""Text as tokens, in an order that depends on a seed and the text alone."""

from ngpt_lab.data.module import TextDataModule

__all__ = ["TextDataModule"]
