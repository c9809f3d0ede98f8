"""Text as tokens, in an order that depends on a seed and the tokens alone.

What a config names is loaded when it is asked for: the processes that tokenize need neither torch nor Lightning.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ngpt_lab.data.module import TextDataModule
    from ngpt_lab.data.sources.hub import HubDataset
    from ngpt_lab.data.sources.library import LibraryCode, LibraryProse, StandardLibrary
    from ngpt_lab.data.sources.mixture import Mixture
    from ngpt_lab.data.sources.saved import SavedDataset
    from ngpt_lab.data.sources.text_files import TextFiles
    from ngpt_lab.data.sources.token_files import NanoGPTFiles, TokenStore
    from ngpt_lab.data.switching import SwitchingTextDataModule
    from ngpt_lab.data.tasks.sequences import SequenceData
    from ngpt_lab.data.tasks.spans import SpanData
    from ngpt_lab.data.tasks.tables import HubTable, SavedTable, TableFiles
    from ngpt_lab.data.tasks.tokenizer_folder import TokenizerFolder
    from ngpt_lab.data.tasks.words import TokenData
    from ngpt_lab.data.tokenizers import BPE, Bytes, HubTokenizer, TokenizerFile
    from ngpt_lab.data.windows import AcrossDocuments, MaskedDocuments, WithinDocuments

__all__ = [
    "BPE",
    "AcrossDocuments",
    "Bytes",
    "HubDataset",
    "HubTable",
    "HubTokenizer",
    "LibraryCode",
    "LibraryProse",
    "MaskedDocuments",
    "Mixture",
    "NanoGPTFiles",
    "SavedDataset",
    "SavedTable",
    "SequenceData",
    "SpanData",
    "StandardLibrary",
    "SwitchingTextDataModule",
    "TableFiles",
    "TextDataModule",
    "TextFiles",
    "TokenData",
    "TokenStore",
    "TokenizerFile",
    "TokenizerFolder",
    "WithinDocuments",
]

_HOMES = {
    "module": ["TextDataModule"],
    "sources.hub": ["HubDataset"],
    "sources.library": ["LibraryCode", "LibraryProse", "StandardLibrary"],
    "sources.mixture": ["Mixture"],
    "sources.saved": ["SavedDataset"],
    "sources.text_files": ["TextFiles"],
    "sources.token_files": ["NanoGPTFiles", "TokenStore"],
    "switching": ["SwitchingTextDataModule"],
    "tasks.sequences": ["SequenceData"],
    "tasks.spans": ["SpanData"],
    "tasks.tables": ["HubTable", "SavedTable", "TableFiles"],
    "tasks.tokenizer_folder": ["TokenizerFolder"],
    "tasks.words": ["TokenData"],
    "tokenizers": ["BPE", "Bytes", "HubTokenizer", "TokenizerFile"],
    "windows": ["AcrossDocuments", "MaskedDocuments", "WithinDocuments"],
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"ngpt_lab.data.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
