"""What a folder says of a task's head."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ngpt_lab.errors import InputError
from ngpt_lab.models import Decoder
from ngpt_lab.models.ngpt import ScaledLogits
from ngpt_lab.nn.heads import SequenceHead, SpanHead, TokenHead
from ngpt_lab.nn.plain import PlainLogits
from ngpt_lab.nn.scale import Scale
from ngpt_lab.training.tasks import problems

# How the name of Hugging Face's class ends.
ENDINGS = {
    type(None): "ForCausalLM",
    SequenceHead: "ForSequenceClassification",
    TokenHead: "ForTokenClassification",
    SpanHead: "ForQuestionAnswering",
}


def ending(head: nn.Module | None) -> str:
    """How the name of the class ends that holds a head.

    Raises:
        InputError: none does.
    """
    if type(head) not in ENDINGS:
        known = ", ".join(kind.__name__ for kind in ENDINGS if kind is not type(None))
        raise InputError(f"cannot export a task's head of {type(head).__name__}: Hugging Face's classes hold {known}")
    return ENDINGS[type(head)]


@contextmanager
def any_head(decoder: Decoder) -> Iterator[None]:
    """A language-model head without memory for a decoder that has none: what is exported is told by all of its parts."""
    if decoder.lm_head is not None:
        yield
        return
    sphere = [part for part in decoder.modules() if isinstance(part, Scale)]
    with torch.device("meta"):
        if decoder.on_sphere:
            # Stored like the other scales, which are stored anew where they differ.
            stored = sphere[0].stored_init if sphere else 1.0
            decoder.lm_head = ScaledLogits(decoder.dims, decoder.embedding.weight, init=1.0, stored_init=stored)
        else:
            decoder.lm_head = PlainLogits(decoder.dims, decoder.embedding.weight)
    try:
        yield
    finally:
        decoder.lm_head = None


def head_config(head: nn.Module | None, settings: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json says of a head; nothing of a language model's.

    Args:
        head: the task's.
        settings: the run's.
        record: its run.json.
    """
    if isinstance(head, TokenHead):
        return {**labels(head.score.out_features, record), "classifier_dropout": head.dropout.p}
    if isinstance(head, SequenceHead):
        named = settings.get("model.init_args.problem.class_path") or settings.get("model.init_args.problem")
        problem = getattr(problems, str(named).rpartition(".")[2], problems.SingleLabel)
        found = {"problem_type": problem.name, **labels(head.score.out_features, record)}
        return found if head.pad_token_id is None else {**found, "pad_token_id": head.pad_token_id}
    return {}


def labels(count: int, record: Mapping[str, Any]) -> dict[str, Any]:
    """The names of labels: those of the data, or of the folder that was imported; else their numbers."""
    names = (record.get("data") or {}).get("label_names")
    if not isinstance(names, list) or len(names) != count:
        original = original_config(record).get("id2label")
        given = original if isinstance(original, Mapping) else {}
        names = [given.get(str(number), f"LABEL_{number}") for number in range(count)]
    named = {str(number): str(name) for number, name in enumerate(names)}
    return {"id2label": named, "label2id": {name: int(number) for number, name in named.items()}}


def original_config(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config.json of the folder that a run was imported from; empty where it was not."""
    source = record.get("source")
    config = source.get("config") if isinstance(source, Mapping) else None
    return config if isinstance(config, Mapping) else {}
