"""What reading a prompt and continuing it costs: our own loop and transformers', the same weights, in turns in one process."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from ngpt_lab.bench.timing import clock, machine, ratio
from ngpt_lab.errors import InputError
from ngpt_lab.generation.loop import generate
from ngpt_lab.interop import export_config, export_weights
from ngpt_lab.models import NGPT, Decoder, Dims, Nemotron

PHASES = ("prefill", "decode")
BASELINE = "hf-nemotron"
Tells = Callable[[Tensor], None]
# What continues tokens (B, T) by so many ids (B,), each of which it tells as it is chosen.
Continues = Callable[[Tensor, int, Tells], None]


@dataclass(frozen=True)
class Work:
    """What every arm does in every round.

    Args:
        batch: prompts side by side.
        prompt: tokens of each.
        new: tokens that are decoded after the first, which the prefill gives.
    """

    batch: int = 1
    prompt: int = 256
    new: int = 64

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise InputError(f"--{name} is {value}: it must be at least 1")


def measure(
    dims: Dims,
    work: Work,
    rounds: int = 10,
    warmup: int = 2,
    threads: int = 1,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> dict[str, Any]:
    """Seconds of prefill and decode, greedy, in every round, the arms in alternating order.

    Args:
        dims: of all models.
        work: what is continued, and how far.
        rounds: how many count.
        warmup: how many come first.
        threads: CPU threads.
        dtype: of the weights.
        device: where it runs; by default the CPU.

    Returns:
        For each phase the arms' seconds and, paired by round, their ratios to transformers' Nemotron; and whether both
        implementations of a model gave the same ids.

    Raises:
        InputError: transformers is not there.
    """
    device = device or torch.device("cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        arms = build(dims, dtype, device)
        tokens = torch.randint(dims.vocab_size, (work.batch, work.prompt), generator=torch.Generator().manual_seed(0))
        seconds, ids = time_rounds(arms, tokens.to(device), work.new, rounds, warmup)
    finally:
        torch.set_num_threads(before)
    return {
        **machine(device, threads, rounds),
        "dtype": str(dtype).removeprefix("torch."),
        "dims": asdict(dims),
        "work": asdict(work),
        "same_ids": {model: torch.equal(ids[model], ids[f"hf-{model}"]) for model in ("ngpt", "nemotron")},
        **{phase: figures(seconds[phase], tokens_of(work)[phase]) for phase in PHASES},
    }


def tokens_of(work: Work) -> dict[str, int]:
    """How many tokens go through the model in each phase."""
    return {"prefill": work.batch * work.prompt, "decode": work.batch * work.new}


def figures(seconds: Mapping[str, list[float]], tokens: int) -> dict[str, Any]:
    """What is told of one phase."""
    return {
        "arms": {
            name: {"seconds": values, "median": median(values), "tokens_per_second": tokens / median(values)}
            for name, values in seconds.items()
        },
        "ratios": {name: ratio(values, seconds[BASELINE]) for name, values in seconds.items() if name != BASELINE},
    }


def build(dims: Dims, dtype: torch.dtype, device: torch.device) -> dict[str, Continues]:
    """Both models, each in our own loop and in transformers', with the same weights.

    Raises:
        InputError: transformers is not there.
    """
    try:
        from transformers import NemotronConfig, NemotronForCausalLM
        from transformers.utils.logging import disable_progress_bar

        from ngpt_lab.hf import NGPTConfig, NGPTForCausalLM
    except ImportError as error:
        raise InputError(f"bench generate measures transformers too ({error}): install ngpt-lab[hf]") from error
    disable_progress_bar()
    classes: dict[str, tuple[Any, Any, Any]] = {
        "ngpt": (NGPT, NGPTConfig, NGPTForCausalLM),
        "nemotron": (Nemotron, NemotronConfig, NemotronForCausalLM),
    }
    ours: dict[str, Continues] = {}
    theirs: dict[str, Continues] = {}
    for model, (own, config, cls) in classes.items():
        torch.manual_seed(0)
        decoder: Decoder = own(dims).to(dtype).eval()
        told, weights = (exported(decoder, f"hf-{model}") for exported in (export_config, export_weights))
        other = cls.from_pretrained(None, config=config(**told), state_dict=weights, dtype=dtype).eval()
        ours[model] = partial(by_our_loop, decoder.to(device))
        theirs[f"hf-{model}"] = partial(by_transformers, other.to(device))
    return ours | theirs


def by_our_loop(decoder: Decoder, tokens: Tensor, new: int, tell: Tells) -> None:
    """Continue by `ngpt_lab.generation`."""
    for ids in generate(decoder, tokens, max_new_tokens=new):
        tell(ids)


def by_transformers(model: Any, tokens: Tensor, new: int, tell: Tells) -> None:
    """Continue by the model's own `generate`; it has no token that ends a text."""
    streamer = Streamer(tell)
    mask = torch.ones_like(tokens)
    model.generate(tokens, attention_mask=mask, max_new_tokens=new, do_sample=False, streamer=streamer)


class Streamer:
    """What transformers' `generate` gives ids to: the prompt's, then each new one."""

    def __init__(self, tell: Tells) -> None:
        self._tell, self._prompt = tell, True

    def put(self, ids: Tensor) -> None:
        """Take ids."""
        if not self._prompt:
            self._tell(ids)
        self._prompt = False

    def end(self) -> None:
        """There are no more."""


def time_rounds(
    arms: Mapping[str, Continues], tokens: Tensor, new: int, rounds: int, warmup: int
) -> tuple[dict[str, dict[str, list[float]]], dict[str, Tensor]]:
    """Each phase's seconds of each arm in each counted round, and the ids (B, 1 + new) that each arm gave.

    Every second round goes through the arms backwards.
    """
    seconds: dict[str, dict[str, list[float]]] = {phase: {name: [] for name in arms} for phase in PHASES}
    ids: dict[str, Tensor] = {}
    for at in range(warmup + rounds):
        for name in list(arms) if at % 2 else reversed(list(arms)):
            *phases, ids[name] = time_once(arms[name], tokens, new)
            if at >= warmup:
                for phase, value in zip(PHASES, phases, strict=True):
                    seconds[phase][name].append(value)
    return seconds, ids


def time_once(arm: Continues, tokens: Tensor, new: int) -> tuple[float, float, Tensor]:
    """Seconds to the first new token and from there to the last, and all of them."""
    told: list[Tensor] = []
    marks: list[float] = []

    def tell(ids: Tensor) -> None:
        if not told:
            marks.append(clock(tokens.device))
        told.append(ids)

    start = clock(tokens.device)
    arm(tokens, 1 + new, tell)
    end = clock(tokens.device)
    return marks[0] - start, end - marks[0], torch.stack([ids.cpu() for ids in told], dim=1)
