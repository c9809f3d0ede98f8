"""Reference weights in and out: the decoders other people published, as ours, and two of them back."""

from ngpt_lab.interop.export import export_weights
from ngpt_lab.interop.references import import_weights, reference_names
from ngpt_lab.interop.target import Exported
from ngpt_lab.interop.tensors import Names

__all__ = ["Exported", "Names", "export_weights", "import_weights", "reference_names"]
