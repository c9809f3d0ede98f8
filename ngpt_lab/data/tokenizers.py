"""Tokenizers to name in a config, each of which makes an encoder."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ngpt_lab.data.encoders import TOKENIZER_JSON, ByteEncoder, Encoder, FileEncoder, read_tokenizer
from ngpt_lab.errors import InputError

if TYPE_CHECKING:
    from ngpt_lab.data.sources.source import TextSource

END_OF_TEXT = "<|endoftext|>"


class Tokenizer(ABC):
    """How text becomes tokens."""

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """What names it among all tokenizers, as JSON; with the source's it names a store."""

    @abstractmethod
    def encoder(self, source: "TextSource") -> Encoder:
        """Train it on a source's training split, or load it."""

    @abstractmethod
    def restore(self, folder: Path) -> Encoder:
        """The encoder that was saved in a folder."""


class Bytes(Tokenizer):
    """The bytes of the text; the separator is 0."""

    def spec(self) -> dict[str, Any]:
        """See `Tokenizer`."""
        return {"class": "Bytes"}

    def encoder(self, source: "TextSource") -> Encoder:
        """See `Tokenizer`."""
        return ByteEncoder()

    def restore(self, folder: Path) -> Encoder:
        """See `Tokenizer`."""
        return ByteEncoder()


class BPE(Tokenizer):
    """Byte-level byte-pair encoding, trained on the source: no text is unknown to it, and decoding gives it back.

    Args:
        vocab_size: Tokens, the 256 bytes and the separator <|endoftext|> among them. A small text may give fewer.
        sample_bytes: Bytes at the beginning of the training split that it is trained on.
    """

    def __init__(self, vocab_size: int, sample_bytes: int = 2**28) -> None:
        if not 257 <= vocab_size <= 2**24:
            raise InputError(
                f"vocab_size of BPE is {vocab_size}: the 256 bytes and the separator make at least 257, and 2**24 is the most"
            )
        if sample_bytes < 1:
            raise InputError(f"sample_bytes of BPE is {sample_bytes}: at least 1 byte of text is needed to train it")
        self.vocab_size, self.sample_bytes = vocab_size, sample_bytes

    def spec(self) -> dict[str, Any]:
        """See `Tokenizer`."""
        return {"class": "BPE", "vocab_size": self.vocab_size, "sample_bytes": self.sample_bytes}

    def encoder(self, source: "TextSource") -> Encoder:
        """See `Tokenizer`."""
        from tokenizers import Tokenizer as Trained
        from tokenizers import decoders, models, pre_tokenizers, trainers

        trained = Trained(models.BPE())
        trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trained.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            special_tokens=[END_OF_TEXT],
            # Sorted: the ids of the bytes would else depend on the order of a hash table.
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        trained.train_from_iterator(self._sample(source), trainer)
        return FileEncoder(trained.to_str(pretty=True).encode(), END_OF_TEXT, f"BPE {trained.get_vocab_size()}")

    def restore(self, folder: Path) -> Encoder:
        """See `Tokenizer`."""
        encoder = FileEncoder(read_tokenizer(folder / TOKENIZER_JSON), END_OF_TEXT)
        return encoder.named(f"BPE {encoder.vocab_size}")

    def _sample(self, source: "TextSource") -> Iterator[str]:
        left = self.sample_bytes
        for piece in source.pieces("train"):
            # Only a cut lies inside a character, of which the part at its end is left out.
            yield piece.text[:left].decode(errors="ignore")
            left -= len(piece.text)
            if left <= 0:
                return


class TokenizerFile(Tokenizer):
    """Any tokenizer.json, as the tokenizers library writes it.

    Args:
        path: The file.
        separator: The token that follows each document.
    """

    def __init__(self, path: str, separator: str = END_OF_TEXT) -> None:
        self.path, self.separator = Path(path).expanduser().absolute(), separator
        self._content: bytes | None = None

    def spec(self) -> dict[str, Any]:
        """See `Tokenizer`; the content counts, and not where the file lies."""
        content = hashlib.sha256(self._read()).hexdigest()
        return {"class": "TokenizerFile", "sha256": content, "separator": self.separator}

    def encoder(self, source: "TextSource") -> Encoder:
        """See `Tokenizer`."""
        return FileEncoder(self._read(), self.separator, self.path.name, self.path)

    def restore(self, folder: Path) -> Encoder:
        """See `Tokenizer`."""
        return FileEncoder(read_tokenizer(folder / TOKENIZER_JSON), self.separator, self.path.name)

    def _read(self) -> bytes:
        if self._content is None:
            self._content = read_tokenizer(self.path)
        return self._content


class HubTokenizer(Tokenizer):
    """The tokenizer.json of a model on the Hugging Face hub, which is downloaded once.

    Args:
        name: The model, as in openai-community/gpt2.
        separator: The token that follows each document.
        revision: A branch, tag or commit; the main branch where it is left out.
    """

    def __init__(self, name: str, separator: str = END_OF_TEXT, revision: str | None = None) -> None:
        self.name, self.separator, self.revision = name, separator, revision

    def spec(self) -> dict[str, Any]:
        """See `Tokenizer`."""
        return {"class": "HubTokenizer", "name": self.name, "revision": self.revision, "separator": self.separator}

    def encoder(self, source: "TextSource") -> Encoder:
        """See `Tokenizer`."""
        from huggingface_hub import hf_hub_download

        try:
            path = hf_hub_download(self.name, TOKENIZER_JSON, revision=self.revision)
        except Exception as error:  # every layer below raises its own
            told = str(error).strip().partition("\n")[0]
            raise InputError(
                f"the tokenizer of {self.name} cannot be had from the Hugging Face hub ({told}): check the name and the "
                "connection, or name a file with ngpt_lab.data.TokenizerFile"
            ) from error
        return FileEncoder(read_tokenizer(Path(path)), self.separator, self.name)

    def restore(self, folder: Path) -> Encoder:
        """See `Tokenizer`."""
        return FileEncoder(read_tokenizer(folder / TOKENIZER_JSON), self.separator, self.name)
