"""The Hugging Face classes whose folders are imported, as modules of ours."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ngpt_lab.errors import InputError
from ngpt_lab.interop import hf_nemotron, hf_ngpt
from ngpt_lab.interop.blueprint import import_path, section
from ngpt_lab.interop.fields import Fields
from ngpt_lab.interop.tensors import Reference
from ngpt_lab.models import NGPT, Decoder, Nemotron
from ngpt_lab.training import (
    AdamW,
    Cosine,
    LanguageModel,
    QuestionAnswering,
    SequenceClassification,
    TokenClassification,
)
from ngpt_lab.training.tasks import MultiLabel, Regression, SingleLabel

Config = Mapping[str, Any]
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """A model_type.

    Args:
        name: how the names of its classes begin.
        reference: its fields and names.
        model: the decoder's class.
        arguments: of that class, from the fields.
        weight_decay: with which it is trained.
        warmup: with which it is trained.
        projections: every how many steps its matrices are brought back to the sphere; 0 for never.
        prefixes: how the class of a task calls its base model, where that is not `model`.
    """

    name: str
    reference: Reference
    model: type[Decoder]
    arguments: Callable[[Fields], dict[str, Any]]
    weight_decay: float
    warmup: float
    projections: int
    prefixes: Mapping[str, str] = field(default_factory=dict)

    def sections(self, config: Config, tensors: Tensors) -> dict[str, Any]:
        """The sections of a run's config that build and train the model of a folder.

        Args:
            config: its config.json.
            tensors: its weights, which tell how many labels there are.

        Raises:
            InputError: a field that cannot be honoured.
        """
        reference = self.reference
        fields = Fields(reference.kind, config, reference.defaults, reference.ignored)
        module, settings = TASKS[self.task(config, tensors)]
        arguments = {
            "backbone": section(self.model, self.arguments(fields)),
            "optimizer": {"class_path": import_path(AdamW), "init_args": {"weight_decay": self.weight_decay}},
            "schedule": {"class_path": import_path(Cosine), "init_args": {"warmup": self.warmup}},
            **settings(config, tensors),
        }
        return {"model": section(module, arguments), "normalize_weights": {"every_n_steps": self.projections}}

    def task(self, config: Config, names: Collection[str]) -> str:
        """How the name of the folder's class ends; told from the tensors where the config does not say.

        Raises:
            InputError: another class, or a base model alone.
        """
        known = ", ".join(self.name + task for task in TASKS)
        said = config.get("architectures") or [self.name + of_names(names)]
        chosen = str(said[0]) if isinstance(said, list) else str(said)
        if chosen == f"{self.name}Model" or "embed_tokens.weight" in names:
            raise InputError(f"it holds {self.name}Model, whose stream no head reads: save the whole model, one of {known}")
        if chosen.removeprefix(self.name) not in TASKS:
            raise InputError(f"architectures is {said!r}: only {known} can be imported")
        return chosen.removeprefix(self.name)

    def theirs(self, module: Any, task: str) -> dict[str, str]:
        """The folder's name of every parameter of `module`."""
        base = f"{self.prefixes.get(task, 'model')}."
        decoder = self.reference.names(module.backbone)
        names = {
            f"backbone.{ours}": base + name.removeprefix("model.") if name.startswith("model.") else name
            for ours, name in decoder.items()
        }
        return names | {ours: ours.removeprefix("head.") for ours, _ in module.named_parameters() if ours.startswith("head.")}


def of_names(names: Collection[str]) -> str:
    """The task whose head has tensors of these names."""
    if "qa_outputs.weight" in names:
        return "ForQuestionAnswering"
    if "score.bias" in names:
        return "ForTokenClassification"
    return "ForSequenceClassification" if "score.weight" in names else "ForCausalLM"


def labels(config: Config, tensors: Tensors) -> int:
    """How many labels the head of a folder scores.

    Raises:
        InputError: the config names another number of them.
    """
    named = config.get("id2label")
    told = len(named) if isinstance(named, Mapping) else 2
    if "score.weight" not in tensors or tensors["score.weight"].dim() != 2:
        return told
    count = tensors["score.weight"].shape[0]
    if named is not None and told != count:
        raise InputError(f"id2label names {told} labels, and score.weight has {count} rows: they must agree")
    return count


def of_sequences(config: Config, tensors: Tensors) -> dict[str, Any]:
    """The settings of sequence classification."""
    count, problem = labels(config, tensors), config.get("problem_type")
    problems = {problem.name: problem for problem in (SingleLabel, MultiLabel, Regression)}
    chosen = problem or (Regression.name if count == 1 else SingleLabel.name)
    if not isinstance(chosen, str) or chosen not in problems:
        raise InputError(f"problem_type is {problem!r}: choose one of {', '.join(problems)}")
    pad = config.get("pad_token_id")
    if pad is not None and (isinstance(pad, bool) or not isinstance(pad, int)):
        raise InputError(f"pad_token_id is {pad!r}: it must be the number of a token, or null")
    return {"num_labels": count, "pad_token_id": pad, "problem": problems[chosen]}


def of_tokens(config: Config, tensors: Tensors) -> dict[str, Any]:
    """The settings of token classification."""
    given = (config.get(name) for name in ("classifier_dropout", "hidden_dropout"))
    share = next((share for share in given if share is not None), 0.1)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise InputError(f"classifier_dropout is {share!r}: it must be at least 0 and below 1")
    return {"num_labels": labels(config, tensors), "dropout": float(share)}


def of_nothing_else(config: Config, tensors: Tensors) -> dict[str, Any]:
    """The settings of modules without any of their own."""
    return {}


# By how the name of Hugging Face's class ends.
TASKS: dict[str, tuple[type, Callable[[Config, Tensors], dict[str, Any]]]] = {
    "ForCausalLM": (LanguageModel, of_nothing_else),
    "ForSequenceClassification": (SequenceClassification, of_sequences),
    "ForTokenClassification": (TokenClassification, of_tokens),
    "ForQuestionAnswering": (QuestionAnswering, of_nothing_else),
}
ARCHITECTURES = {
    "nemotron": Architecture(
        "Nemotron",
        hf_nemotron.HF_NEMOTRON,
        Nemotron,
        hf_nemotron.decoder_arguments,
        weight_decay=0.1,
        warmup=0.1,
        projections=0,
        prefixes={"ForQuestionAnswering": "transformer"},
    ),
    "ngpt": Architecture("NGPT", hf_ngpt.HF_NGPT, NGPT, hf_ngpt.decoder_arguments, weight_decay=0.0, warmup=0.0, projections=1),
}


def architecture(config: Config) -> Architecture:
    """What a config.json is of.

    Raises:
        InputError: another model_type.
    """
    said = config.get("model_type")
    if not isinstance(said, str) or said not in ARCHITECTURES:
        raise InputError(f"model_type is {said!r}: only {' and '.join(ARCHITECTURES)} can be imported")
    return ARCHITECTURES[said]
