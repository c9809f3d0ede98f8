"""`ngpt-lab tokenize`."""

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ngpt_lab.arguments import OptionParser
from ngpt_lab.data import store
from ngpt_lab.data.corpora import Corpus
from ngpt_lab.data.module import WindowDataModule
from ngpt_lab.data.sources.source import Source, TextSource
from ngpt_lab.data.store.place import store_folder
from ngpt_lab.data.store.stream import ShardedStream
from ngpt_lab.data.tokenizers import Bytes, Tokenizer
from ngpt_lab.errors import InputError
from ngpt_lab.training.parser import Parser, one_sentence, told_by


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab tokenize`.

    Raises:
        InputError: bad input, or a store that is damaged.
    """
    options, rest = parser().parse_known_args(arguments)
    data = data_module(options.config, rest)
    processes = data.processes if options.processes is None else options.processes
    for source in data.sources:
        tokenize(source, data.tokenizer, data.store, processes, options.shard_tokens)


def parser() -> OptionParser:
    """The command's own options."""
    parser = OptionParser(
        prog="ngpt-lab tokenize",
        description="Make the tokens a config's data is read from, or go on with them; check every file of finished ones.",
        epilog="Every --data.KEY=VALUE of fit applies too.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "-c", "--config", action="append", default=[], metavar="FILE", help="a config file of fit; its data part counts"
    )
    parser.add_argument("--processes", type=int, help="processes that tokenize (those of --data.processes)")
    parser.add_argument("--shard_tokens", type=int, default=store.SHARD_TOKENS, help="tokens in a file (67108864)")
    return parser


def data_module(configs: list[str], rest: list[str]) -> WindowDataModule:
    """The data module that `fit` would build.

    Raises:
        InputError: the settings are not those of one.
    """
    composed = Parser()
    composed.add_argument("-c", "--config", action=ActionConfigFile)
    composed.add_lightning_class_args(WindowDataModule, "data", subclass_mode=True, required=False)
    for key in sorted(other_keys(configs)):
        composed.add_argument(f"--{key}", type=Any, default=None)
    parsed = composed.parse_args([word for config in configs for word in ("-c", config)] + rest)
    if parsed.get("data") is None:
        raise InputError("no data is named: give a config file of fit with -c, or --data=ngpt_lab.data.TextDataModule")
    try:
        return composed.instantiate_classes(parsed).data
    except ValueError as error:
        raise told_by(error) or InputError(one_sentence(str(error))) from error


def other_keys(configs: list[str]) -> set[str]:
    """The parts of config files that are not about data: they may be wrong, but not unknown."""
    keys: set[str] = set()
    for config in configs:
        try:
            content = yaml.safe_load(Path(config).read_text())
        except (OSError, ValueError, yaml.YAMLError) as error:
            told = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise InputError(f"{config} cannot be read as YAML: {told}") from error
        keys |= {str(key) for key in content} if isinstance(content, dict) else set()
    return keys - {"data"}


def tokenize(source: Source, tokenizer: Tokenizer | None, folder: Path | None, processes: int, shard_tokens: int) -> None:
    """Make the tokens of a source and say what they are; those that were there already are verified.

    Raises:
        InputError: they cannot be made, or are damaged.
    """
    if isinstance(source, TextSource):
        place = store_folder(source, tokenizer or Bytes(), folder)
        finished = store.is_finished(place)
        store.build(source, tokenizer, place, processes, shard_tokens)
    else:
        source.prepare(tokenizer, folder, processes)
    corpus = source.open(tokenizer, folder)
    if not isinstance(source, TextSource):
        finished = corpus.folder is not None and store.is_finished(corpus.folder)
    console = Console()
    console.print(table(corpus))
    # Not a console's line, which would be broken where a terminal ends.
    print(f"{corpus.folder}: {checked(corpus.folder) if finished and corpus.folder else 'made'}")


def checked(folder: Path) -> str:
    """Verify a store that was there before."""
    store.verify(folder)
    return "was made before, and every checksum is right"


def table(corpus: Corpus) -> Table:
    """A corpus in figures."""
    shown = Table(title=escape(f"{corpus.source}, {corpus.tokenizer}, {corpus.vocab_size} ids"))
    for column in ("split", "tokens", "bytes", "documents", "shards", "bytes per token"):
        shown.add_column(column, justify="left" if column == "split" else "right")
    for name, stream in corpus.splits.items():
        size, ratio = stream.bytes, stream.bytes_per_token
        shards = str(len(stream.shards)) if isinstance(stream, ShardedStream) else "-"
        told = [f"{size:,}" if size is not None else "-", f"{len(stream.documents):,}", shards]
        shown.add_row(name, f"{len(stream):,}", *told, f"{ratio:.3f}" if ratio else "-")
    return shown
