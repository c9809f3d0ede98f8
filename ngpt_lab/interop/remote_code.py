"""The nGPT classes as the one file that `trust_remote_code` lets transformers run, on a machine without this package."""

from importlib.metadata import version

from ngpt_lab.interop.single_file import merged

MODULE = "modeling_ngpt"
CLASSES = {
    "AutoConfig": "NGPTConfig",
    "AutoModel": "NGPTModel",
    "AutoModelForCausalLM": "NGPTForCausalLM",
    "AutoModelForSequenceClassification": "NGPTForSequenceClassification",
    "AutoModelForTokenClassification": "NGPTForTokenClassification",
    "AutoModelForQuestionAnswering": "NGPTForQuestionAnswering",
}
# What config.json says of them.
AUTO_MAP = {auto: f"{MODULE}.{name}" for auto, name in CLASSES.items()}

ABOUT = """nGPT, the normalized Transformer, for transformers: configuration, models and all they are made of, in one file.

Written by ngpt-lab {version} from its own modules, each of which begins below a line with its name; to change something,
change it there. It imports torch, transformers and huggingface_hub alone, reads and writes no file, and opens no connection.

SPDX-License-Identifier: Apache-2.0
"""


def remote_code() -> str:
    """The file's text; the same for the same version of this package, which need not have transformers."""
    return merged("ngpt_lab.hf.modeling", ABOUT.format(version=version("ngpt-lab")))
