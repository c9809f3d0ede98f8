"""Tokenizers as the folders that Hugging Face's AutoTokenizer reads: tokenizer.json and tokenizer_config.json."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ngpt_lab.data.encoders import LARGEST_FILE, TOKENIZER_JSON, ByteEncoder, Encoder, FileEncoder, read_tokenizer
from ngpt_lab.data.store.fields import Fields
from ngpt_lab.data.store.manifest import MANIFEST, read_manifest
from ngpt_lab.errors import InputError
from ngpt_lab.files import write_atomically

TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
# Every file that a tokenizer of Hugging Face's may have; the first two are all it takes.
TOKENIZER_FILES = (
    TOKENIZER_JSON,
    TOKENIZER_CONFIG,
    SPECIAL_TOKENS,
    "added_tokens.json",
    "chat_template.jinja",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
)
# The separator of bytes. Not the ByteLevel alphabet's character for it, U+0100, which text may hold as a letter of its own.
ZERO = "\0"


class TextTokenizer:
    """What a tokenizer folder makes of text, with the ids of Hugging Face's AutoTokenizer.

    A special token that the text spells is that token.

    Args:
        content: of tokenizer.json.
        eos_token: the token that ends a text, if there is one.
        path: the file, for messages.

    Raises:
        InputError: the content is no tokenizer's.
    """

    def __init__(self, content: bytes, eos_token: str | None, path: Path | str = TOKENIZER_JSON) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_str(content.decode())
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library's panics are no Exceptions
            told = str(error).partition("\n")[0][:200]
            raise InputError(f"{path} is not a tokenizer of the tokenizers library: {told}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._ids: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = max(self._ids.values(), default=-1) + 1
        self.eos = self.id_of(eos_token)

    def id_of(self, token: str | None) -> int | None:
        """A token's id; None where there is no such token."""
        return None if token is None else self._ids.get(token)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, less the special tokens that AutoTokenizer adds."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_with_template(self, text: str) -> list[int]:
        """The ids of a text as AutoTokenizer gives them: with the tokens that the tokenizer's template adds, if any."""
        return self._tokenizer.encode(text).ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, special tokens spelled out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)


def read_tokenizer_folder(folder: Path) -> TextTokenizer:
    """The tokenizer in a folder.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = folder / TOKENIZER_JSON
    if not path.is_file():
        raise InputError(f"{folder} has no {TOKENIZER_JSON}: a tokenizer of the tokenizers library is needed")
    return TextTokenizer(read_tokenizer(path), special_token(folder, "eos_token"), path)


def special_token(folder: Path, role: str) -> str | None:
    """What the token of a role, as eos_token, is called in a tokenizer folder; None where there is none.

    Raises:
        InputError: a file in it is damaged.
    """
    for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS):
        if (folder / name).is_file():
            token = Fields.of_file(folder / name).content.get(role)
            token = token.get("content") if isinstance(token, Mapping) else token
            if isinstance(token, str):
                return token
    return None


def write_tokenizer(encoder: Encoder, folder: Path) -> bool:
    """Write an encoder as a tokenizer folder; False where such an encoder has no file that it could be written as.

    The separator becomes the token that ends a text, and fills up batches.

    Raises:
        InputError: it cannot be written.
    """
    if isinstance(encoder, ByteEncoder):
        write_tokenizer_files(byte_tokenizer(), ZERO, 0, folder)
    elif isinstance(encoder, FileEncoder):
        write_tokenizer_files(json.loads(encoder.content), encoder.separator_token, encoder.separator, folder)
    else:
        return False
    return True


def write_store_tokenizer(store: Path, folder: Path) -> bool:
    """Write the tokenizer that made the tokens of a store as a tokenizer folder; False where that is not known.

    Nothing but files is read and written: it costs a start of training no time.

    Raises:
        InputError: it cannot be written.
    """
    found = stored_tokenizer(store)
    if found is not None:
        write_tokenizer_files(*found, folder)
    return found is not None


def stored_tokenizer(store: Path) -> tuple[dict[str, Any], str, int] | None:
    """The tokenizer.json that made the tokens of a store, its separator and that one's id; None where none can be read."""
    if not (store / MANIFEST).is_file():
        return None
    try:
        made_by = read_manifest(store).tokenizer
        if made_by.fingerprint == ByteEncoder.fingerprint:
            return byte_tokenizer(), ZERO, 0
        described = Fields.of_file(store / TOKENIZER_JSON, LARGEST_FILE).content
    except InputError:
        return None
    separator = token_of(described, made_by.separator)
    return None if separator is None else (described, separator, made_by.separator)


def write_tokenizer_files(described: Mapping[str, Any], end: str, number: int, folder: Path) -> None:
    """Write a tokenizer.json's object, as training used it, and the config beside it.

    Its own templates, truncation and padding had no part in training, see `FileEncoder`; two texts together had the token
    between them that ends a text.

    Args:
        described: the object.
        end: the token that ends a text.
        number: its id.
        folder: where they go.
    """
    added = [{**token, "special": True} if token["content"] == end else token for token in described.get("added_tokens") or []]
    parts = {"truncation": None, "padding": None, "added_tokens": added, "post_processor": template(end, number)}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": end,
        "pad_token": end,
        "padding_side": "left",
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(1e30),
    }
    write_atomically(folder / TOKENIZER_JSON, json.dumps({**described, **parts}, indent=1, ensure_ascii=False) + "\n")
    write_atomically(folder / TOKENIZER_CONFIG, json.dumps(config, indent=1) + "\n")


def template(end: str, number: int) -> dict[str, Any]:
    """A post-processor that leaves a text as it is, and puts the token that ends a text between two."""
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [first],
        "pair": [first, {"SpecialToken": {"id": end, "type_id": 0}}, second],
        "special_tokens": {end: {"id": end, "ids": [number], "tokens": [end]}},
    }


def token_of(described: Mapping[str, Any], number: int) -> str | None:
    """The token that has an id in a tokenizer.json."""
    for token in described.get("added_tokens") or []:
        if token["id"] == number:
            return token["content"]
    vocabulary = (described.get("model") or {}).get("vocab") or {}
    if isinstance(vocabulary, list):  # of a unigram model: pairs of a token and its score
        return vocabulary[number][0] if number < len(vocabulary) else None
    return next((token for token, known in vocabulary.items() if known == number), None)


def byte_tokenizer() -> dict[str, Any]:
    """A tokenizer.json whose ids are the bytes of the text; byte 0 is the special token that ends a text.

    The ByteLevel alphabet writes each byte as a printable character. Its character for byte 0 is in no vocabulary, so that
    byte 0 is unknown, which is id 0 again, wherever the special token has not been found.
    """
    vocabulary = {ZERO: 0} | {letter: byte for byte, letter in enumerate(byte_alphabet()) if byte}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": 0, "content": ZERO, **special}],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": ZERO,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [],
        },
    }


def byte_alphabet() -> list[str]:
    """The character that the ByteLevel parts of the tokenizers library, and of GPT-2 before it, write each byte as."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte if byte in printable else 0x100 + others.index(byte)) for byte in range(256)]
