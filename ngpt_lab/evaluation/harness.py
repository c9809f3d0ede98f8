"""A decoder's results on tasks of lm-evaluation-harness."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from ngpt_lab.errors import InputError
from ngpt_lab.evaluation.tasks import Loaded
from ngpt_lab.interop.exported_task import original_config
from ngpt_lab.interop.run_tokenizer import remake_tokenizer
from ngpt_lab.interop.trained import Trained
from ngpt_lab.interop.weight_files import first_line
from ngpt_lab.training.resume import recorded
from ngpt_lab.training.run_record import TOKENIZER

NEEDED = ("lm_eval", "transformers")


def check_installed() -> None:
    """See that the extra is there.

    Raises:
        InputError: it is not.
    """
    for name in NEEDED:
        if find_spec(name) is None:
            raise InputError(f"tasks need {name}, which is not installed: pip install 'ngpt-lab[eval]'")


def tokenizer_for(trained: Trained, temporary: Path) -> Any:
    """The run's tokenizer as Hugging Face's AutoTokenizer reads it, which is how the harness's `hf` model does.

    Args:
        trained: of the run.
        temporary: an empty folder, for the tokenizer of a run that kept none.

    Raises:
        InputError: it is not known, cannot be read, or has ids that the decoder has not.
    """
    from transformers import AutoTokenizer

    folder = trained.folder / TOKENIZER
    if not folder.is_dir():
        folder = temporary
        if not remake_tokenizer(trained.folder, folder):
            raise InputError(f"{trained.folder} has no tokenizer, and its tokens are not there to tell: tasks need one")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of the tokenizers library all are of this class
        raise InputError(f"{folder} holds no tokenizer that transformers can read: {first_line(error)}") from error
    if len(tokenizer) > trained.decoder.dims.vocab_size:
        raise InputError(
            f"{folder} has {len(tokenizer)} tokens and the decoder {trained.decoder.dims.vocab_size} ids: it belongs to another"
        )
    return tokenizer


def length_read(trained: Trained) -> int:
    """How many tokens are read at once unless told otherwise, as `hf` does with the export.

    That is as many as in training, as the config says that was imported, or as the model's class in transformers says.
    """
    from transformers import NemotronConfig

    from ngpt_lab.hf import NGPTConfig

    of_class = NGPTConfig if trained.decoder.on_sphere else NemotronConfig
    said = (
        trained.settings.get("data.init_args.seq_len"),
        original_config(recorded(trained.folder)).get("max_position_embeddings"),
        of_class().max_position_embeddings,
    )
    return next(length for length in said if isinstance(length, int))


def check_generation(lm: Any, loaded: Loaded) -> None:
    """See that texts can be continued as the tasks want it, before any is read.

    Raises:
        InputError: they cannot.
    """
    for name, task in loaded.manager.load(loaded.tasks)["tasks"].items():
        if task.get_config("output_type") == "generate_until":
            try:
                lm.asked(task.get_config("generation_kwargs") or {})
            except InputError as error:
                raise InputError(f"{name}: {error}") from error


def results(lm: Any, loaded: Loaded, num_fewshot: int | None, limit: float | None) -> dict[str, Any]:
    """What a language model of the harness scores: tasks, groups and the conditions of the harness, ready for JSON.

    Args:
        lm: the model.
        loaded: the tasks.
        num_fewshot: examples before each text, where a task does not fix them.
        limit: how many texts of each task are read, or which share of them where it is below 1.

    Raises:
        InputError: a task's template names what its data have not, a text that does not fit, fewer texts than are to be shown
            before each, or whatever else the harness cannot do.
    """
    from lm_eval import simple_evaluate

    asked = {"tasks": loaded.tasks, "task_manager": loaded.manager, "num_fewshot": num_fewshot, "limit": limit}
    try:
        # It prints what it is about, and standard output is for results.
        with redirect_stdout(sys.stderr):
            found = simple_evaluate(model=lm, **asked, log_samples=False)
    except TemplateError as error:
        raise InputError(f"a template of a task does not fit its data: {error}") from error
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"the tasks cannot be carried out: {type(error).__name__}: {first_line(error)}") from error
    groups = found.get("groups", {})
    tasks = {name: scores for name, scores in found["results"].items() if name not in groups}
    return {
        "tasks": {name: described(name, scores, found) for name, scores in tasks.items()},
        "groups": {name: described(name, scores, found) for name, scores in groups.items()},
        "seeds": {name: value for name, value in found["config"].items() if name.endswith("seed")},
    }


def described(name: str, scores: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """A task's scores with its version and how many texts they are of."""
    better, count = found["higher_is_better"].get(name, {}), found["n-samples"].get(name, {})
    metrics = []
    for key, value in scores.items():
        metric, comma, chosen = key.partition(",")
        if comma and not metric.endswith("_stderr"):
            error = number(scores.get(f"{metric}_stderr,{chosen}"))
            entry = {"metric": metric, "filter": chosen, "value": number(value), "stderr": error}
            metrics.append(entry | {"higher_is_better": better.get(metric)})
    return {
        "version": found["versions"].get(name),
        "num_fewshot": found["n-shot"].get(name),
        "n": count.get("effective"),
        "n_of": count.get("original"),
        "metrics": metrics,
    }


def number(value: Any) -> float | None:
    """A finite number, or nothing: the harness says N/A, and JSON has no infinity."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
