"""Task files with data of their own, which no test fetches from anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

CHOICES = [
    {"text": "the norm of a vector on", "choices": ["the sphere", "a line", "one"], "answer": 0},
    {"text": "the norm is", "choices": ["1", "2", "3", "4"], "answer": 0},
    {
        "text": "a text that is longer than what is read at once, so that it is cut ",
        "choices": ["a", "bb"],
        "answer": 1,
    },
    {"text": "the norm", "choices": ["of a vector on the sphere is one", "of"], "answer": 0},
]
CLOZES = ["the norm of a vector on the sphere is one", "on the sphere a vector has a norm of one", "one"]
TEXTS = [*CLOZES, "the norm of a vector on the sphere is one\n" * 9]
METRICS = {
    "multiple_choice": ("acc", "acc_norm"),
    "loglikelihood": ("perplexity", "acc"),
    "loglikelihood_rolling": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
    "generate_until": ("exact_match",),
}
TASKS: dict[str, dict[str, Any]] = {
    "choosing": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "fewshot_split": "test",
    },
    "guessing": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
        "doc_to_target": "{{' '+text.split(' ')[-1]}}",
    },
    "reading": {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}"},
    "writing": {
        "output_type": "generate_until",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{text}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 12, "do_sample": False},
    },
}
TEXTS_OF = {"choosing": CHOICES, "guessing": [{"text": text} for text in CLOZES]}


@pytest.fixture(autouse=True)
def _without_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness starts processes to resample, and others to ask for the versions of compilers and drivers."""
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one task file of each kind."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, described in TASKS.items():
        write_task(folder, name, described, TEXTS_OF.get(name, [{"text": text} for text in TEXTS]))
    return folder


def write_task(folder: Path, name: str, described: Mapping[str, Any], texts: Sequence[Mapping[str, Any]]) -> None:
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(text) + "\n" for text in texts))
    better = {metric: "perplexity" not in metric and metric != "bits_per_byte" for metric in METRICS[described["output_type"]]}
    whole = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        **described,
        "metric_list": [{"metric": metric, "higher_is_better": up} for metric, up in better.items()],
        "metadata": {"version": 3.0},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(whole))
