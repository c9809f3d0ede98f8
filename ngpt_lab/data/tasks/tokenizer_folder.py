"""The tokenizer of a model that has been trained."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ngpt_lab.data.encoders import TOKENIZER_JSON, Encoder, FileEncoder, read_tokenizer
from ngpt_lab.data.tokenizer_files import special_token
from ngpt_lab.data.tokenizers import END_OF_TEXT, Tokenizer

if TYPE_CHECKING:
    from ngpt_lab.data.sources.source import TextSource


class TokenizerFolder(Tokenizer):
    """A folder with tokenizer.json and tokenizer_config.json, as a run's own folder `tokenizer`, or a Hugging Face model's.

    The separator is its end-of-sequence token.

    Args:
        path: The folder.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path).expanduser().absolute()

    def spec(self) -> dict[str, Any]:
        """See `Tokenizer`; the content counts, and not where the folder lies."""
        content = hashlib.sha256(read_tokenizer(self.path / TOKENIZER_JSON)).hexdigest()
        return {"class": "TokenizerFolder", "sha256": content, "separator": self._separator}

    def encoder(self, source: "TextSource") -> Encoder:
        """See `Tokenizer`."""
        return self._read(self.path)

    def restore(self, folder: Path) -> Encoder:
        """See `Tokenizer`."""
        return self._read(folder)

    def _read(self, folder: Path) -> Encoder:
        file = folder / TOKENIZER_JSON
        return FileEncoder(read_tokenizer(file), self._separator, f"{self.path.parent.name}/{self.path.name}", file)

    @property
    def _separator(self) -> str:
        return special_token(self.path, "eos_token") or END_OF_TEXT
