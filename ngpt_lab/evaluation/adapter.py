"""Our decoder as a language model of lm-evaluation-harness; of the extra `eval`."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from ngpt_lab.errors import InputError
from ngpt_lab.generation.loop import generate
from ngpt_lab.generation.sampling import Greedy, Sampler, Sampling
from ngpt_lab.models import Decoder

# What log-probabilities are made in.
SOFTMAX = torch.float32
# Logits that are held at once.
LOGITS = 2**27
# What the harness's own `hf` model continues a text by at most, where a task does not say.
NEW_TOKENS = 256
Request = tuple[Any, list[int], list[int]]
Answer = tuple[float, bool]


class DecoderLM(TemplateLM):
    """Scores and continues texts with the conventions of the harness's `hf` model, whose numbers it gives.

    A text without a context follows the token that begins texts, or else the one that ends them; what is longer than
    `max_length` loses its beginning. Log-probabilities are made in float32, whatever the weights are stored in: they are those
    of `hf` with `softmax_dtype=float32`, which by itself makes them in the type of the weights.

    Args:
        decoder: with its language-model head, in evaluation mode.
        tokenizer: that of its training.
        max_length: how many tokens it reads at once.
        batch_size: how many texts it reads at once.
        stop: the ids that end a text; by default the tokenizer's alone, if it has one.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        batch_size: int,
        stop: Collection[int] | None = None,
    ) -> None:
        super().__init__()
        self.decoder, self.tokenizer, self.max_length, self.batch_size = decoder, tokenizer, max_length, batch_size
        self.stop = set(() if self.eot_token_id is None else (self.eot_token_id,)) if stop is None else set(stop)
        self._device = decoder.embedding.weight.device
        # How many requests were longer than that and lost their beginning.
        self.cut = 0

    @property
    def eot_token_id(self) -> int | None:
        """The token that ends a text, if there is one."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """The token that stands before a text without a context.

        Raises:
            InputError: the tokenizer has no such token.
        """
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return token
        raise InputError("the tokenizer has no token that begins or ends a text, which this task puts before its texts")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The ids of a text, with what the tokenizer's template adds, unless the text begins with that itself."""
        if add_special_tokens is None:
            begin = self.tokenizer.bos_token or self.tokenizer.eos_token
            add_special_tokens = begin is None or not string.startswith(begin)
        return self.tokenizer.encode(string, add_special_tokens=add_special_tokens)

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of each whole text, every token scored once, with as much of the text before it as fits."""
        windows: list[Request] = []
        of_text = []
        for number, (text,) in enumerate(request.args for request in requests):
            laid = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
            found = [make_disjoint_window(window) for window in laid]
            windows += [(None, *window) for window in found]
            of_text += [number] * len(found)
        totals = [0.0] * len(requests)
        for number, (score, _) in zip(of_text, self._loglikelihood_tokens(windows, disable_tqdm), strict=True):
            totals[number] += score
        return totals

    @torch.inference_mode()
    def _loglikelihood_tokens(self, requests: Sequence[Request], disable_tqdm: bool = False, **_: Any) -> list[Answer]:
        """The log-probability of each continuation, and whether every token of it is the likeliest."""
        # Continuations of one token share what comes before them.
        rows: dict[tuple[int, ...], list[int]] = {}
        for number, (_text, context, continuation) in enumerate(requests):
            rows.setdefault(self._read(context, continuation), []).append(number)
        answers: dict[int, Answer] = {}
        for batch in batched(sorted(rows, key=len, reverse=True), self.batch_size, disable_tqdm):
            asked = [(place, number) for place, row in enumerate(batch) for number in rows[row]]
            continuations = [requests[number][2] for _place, number in asked]
            # Padded on the right, where no token sees it.
            x = self.decoder.features(self._padded(batch))
            ends = [(place, len(batch[place])) for place, _number in asked]
            read = [x[place, end - len(own) : end] for (place, end), own in zip(ends, continuations, strict=True)]
            scores = self._scores(torch.cat(read), torch.tensor([token for own in continuations for token in own]))
            for (_place, number), score in zip(asked, scores.split([len(own) for own in continuations]), strict=True):
                answers[number] = float(score[:, 0].sum()), bool(score[:, 1].all())
        return [answers[number] for number in range(len(requests))]

    def _read(self, context: list[int], continuation: list[int]) -> tuple[int, ...]:
        """What is read to score a continuation: all but its last token, cut from the left to the length that fits."""
        if not 0 < len(continuation) <= self.max_length:
            raise InputError(
                f"a task asks for the probability of {len(continuation)} tokens, where the decoder reads 1 to "
                f"{self.max_length} of them: give a longer --max_length, or another task"
            )
        whole = [*(context or [self.prefix_token_id]), *continuation]
        self.cut += len(whole) > self.max_length + 1
        return tuple(whole[-(self.max_length + 1) : -1])

    def _padded(self, rows: Sequence[Sequence[int]], side: str = "right") -> Tensor:
        return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_side=side).to(self._device)

    def _scores(self, x: Tensor, targets: Tensor) -> Tensor:
        """The log-probability of each target and whether it is the likeliest (N, 2), from features (N, C)."""
        found = []
        rows = max(1, LOGITS // self.decoder.dims.vocab_size)
        for some, own in zip(x.split(rows), targets.to(x.device).split(rows), strict=True):
            logits = self.decoder.logits(some[None])[0]
            score = logits.log_softmax(dim=-1, dtype=SOFTMAX).gather(1, own[:, None])[:, 0]
            found.append(torch.stack((score, (logits.argmax(dim=-1) == own).float()), dim=1).cpu())
        return torch.cat(found)

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """What follows each text, up to the first of its stop strings, the end of a text, or its number of tokens."""
        alike: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            alike.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(number)
        texts: dict[int, str] = {}
        for numbers in alike.values():
            asked = self.asked(requests[numbers[0]].args[1])
            room = self.max_length - asked["max_gen_toks"]
            contexts = {number: self._context(requests[number].args[0], room) for number in numbers}
            longest_first = sorted(numbers, key=lambda number: len(contexts[number]), reverse=True)
            for batch in batched(longest_first, self.batch_size, disable_tqdm):
                texts |= dict(zip(batch, self._continued([contexts[number] for number in batch], asked), strict=True))
        return [texts[number] for number in range(len(requests))]

    def asked(self, told: dict[str, Any]) -> dict[str, Any]:
        """How a task wants texts to be continued, from what it says of that.

        Raises:
            InputError: in a way that is not known here, or with more new tokens than there is room for.
        """
        asked = normalize_gen_kwargs(told, NEW_TOKENS)
        sampler(asked)
        if not 1 <= asked["max_gen_toks"] < self.max_length:
            raise InputError(
                f"a task asks for {asked['max_gen_toks']} new tokens, and the decoder reads {self.max_length}: "
                "give a longer --max_length, or another task"
            )
        return dict(asked)

    def _context(self, text: str, room: int) -> list[int]:
        ids = self.tok_encode(text) or [self.prefix_token_id]
        self.cut += len(ids) > room
        return ids[-room:]

    def _continued(self, contexts: Sequence[list[int]], asked: dict[str, Any]) -> list[str]:
        end = self.eot_token_id
        stops = handle_stop_sequences(list(asked["until"]), eos=None if end is None else self.tokenizer.decode(end))
        mask = self._padded([[1] * len(context) for context in contexts], "left")
        new: list[list[int]] = [[] for _ in contexts]
        going = set(range(len(contexts)))
        for ids in generate(
            self.decoder,
            self._padded(contexts, "left"),
            mask,
            max_new_tokens=asked["max_gen_toks"],
            sampler=sampler(asked),
            stop=self.stop,
        ):
            for row in tuple(going):
                new[row].append(int(ids[row]))
                said = self.tokenizer.decode(new[row])
                if new[row][-1] in self.stop or any(stop in said for stop in stops):
                    going.remove(row)
            if not going:
                break
        return [postprocess_generated_text(self.tokenizer.decode(ids, skip_special_tokens=True), stops, None) for ids in new]


def sampler(asked: dict[str, Any]) -> Sampler:
    """How a task wants tokens to be chosen.

    Raises:
        InputError: in a way that is not known here.
    """
    filters = {name: asked[name] for name in ("top_k", "top_p", "min_p") if name in asked}
    unknown = sorted(asked.keys() - {"until", "max_gen_toks", "do_sample", "temperature"} - filters.keys())
    if unknown:
        raise InputError(f"a task asks to generate with {', '.join(unknown)}, which is not known here: take it out of the task")
    return Sampling(temperature=asked.get("temperature", 1.0), **filters) if asked["do_sample"] else Greedy()


def batched(rows: Sequence[Any], size: int, quiet: bool) -> Iterator[Any]:
    """Rows, so many at a time, with a bar where somebody watches."""
    starts = range(0, len(rows), size)
    disable = quiet or not sys.stderr.isatty()
    for start in track(starts, "batches", console=Console(stderr=True), disable=disable):
        yield rows[start : start + size]
