"""Text as tokens, in an order that depends on a seed and the text alone."""

from ngpt_lab.data.module import SwitchingTextDataModule, TextDataModule
from ngpt_lab.data.texts import LibraryCode, LibraryProse, LocalText

__all__ = ["LibraryCode", "LibraryProse", "LocalText", "SwitchingTextDataModule", "TextDataModule"]
