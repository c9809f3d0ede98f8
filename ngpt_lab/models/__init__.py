"""The architectures: a skeleton, and a page for each."""

from ngpt_lab.models.decoder import Decoder
from ngpt_lab.models.gpt import GPT
from ngpt_lab.models.nemotron import Nemotron
from ngpt_lab.models.ngpt import NGPT
from ngpt_lab.nn.slots import Dims

__all__ = ["GPT", "NGPT", "Decoder", "Dims", "Nemotron"]
