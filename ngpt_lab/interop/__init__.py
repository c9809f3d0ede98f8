"""Reference weights in and out: the decoders other people published, as ours, and two of them back."""

from ngpt_lab.interop.export import export_config, export_weights
from ngpt_lab.interop.references import import_weights, reference_names
from ngpt_lab.interop.tensors import Names

__all__ = ["Names", "export_config", "export_weights", "import_weights", "reference_names"]
