"""Every file of a task is a whole recipe, alone with a pretrained run or after a model and a size."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ngpt_lab.errors import InputError
from ngpt_lab.training.cli import DryCLI
from ngpt_lab.training.run_record import flatten

CONFIGS = Path(__file__).parents[2] / "configs"
TASKS = sorted(file.stem for file in (CONFIGS / "task").glob("*.yaml"))
# What the models' own files say, each otherwise.
OF_A_MODEL = {"model.init_args.optimizer.init_args.weight_decay", "model.init_args.optimizer.init_args.decay_embeddings"}


def tree(name: str) -> dict[str, Any]:
    return flatten(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()))


def test_there_is_a_file_for_each_task() -> None:
    assert TASKS == ["question-answering", "sequence-classification", "token-classification"]


@pytest.mark.parametrize("name", TASKS)
def test_a_task_file_says_all_that_the_base_says(name: str) -> None:
    base, task = tree("base"), tree(f"task/{name}")
    assert base.keys() - task.keys() == OF_A_MODEL
    assert all(task[key] == value for key, value in base.items() if key in task and key.startswith(("trainer.", "checkpoint.")))


@pytest.mark.parametrize("model", ["ngpt", "nemotron"])
@pytest.mark.parametrize("name", TASKS)
def test_a_task_file_composes_after_a_model_and_a_size(name: str, model: str) -> None:
    files = [CONFIGS / f"{file}.yaml" for file in ("base", f"model/{model}", "size/debug", f"task/{name}")]
    words = [word for file in files for word in ("-c", str(file))]
    built = DryCLI([*words, "--data.source=TableFiles", "--data.source.files=train.jsonl"])
    for key, value in tree(f"task/{name}").items():
        assert built.settings[key] == value, key
    for key in OF_A_MODEL & tree(f"model/{model}").keys():
        assert built.settings[key] == tree(f"model/{model}")[key]
    assert type(built.model).__name__ == built.settings["model.class_path"].rpartition(".")[2]
    assert built.datamodule.seq_len == built.settings["data.init_args.seq_len"]
    assert built.model.backbone.lm_head is None


@pytest.mark.parametrize("name", TASKS)
def test_the_commands_in_the_comments_parse_and_name_a_validation_split(name: str) -> None:
    comment = "".join(
        line.removeprefix("#")
        for line in (CONFIGS / f"task/{name}.yaml").read_text().splitlines(keepends=True)
        if line[0] == "#"
    )
    command = re.search(r"^   ngpt-lab fit (-c .*(?:\n     .*)*)", comment, re.MULTILINE)
    assert command
    words = command[1].split()
    assert words[:4] == ["-c", f"configs/task/{name}.yaml", "--pretrained", "RUN"]
    files = [CONFIGS / f"{file}.yaml" for file in ("base", "model/nemotron", "size/debug", f"task/{name}")]
    built = DryCLI([*(word for file in files for word in ("-c", str(file))), *words[4:]])
    assert built.datamodule.source.place("validation")
    assert str(built.datamodule.tokenizer.path).endswith("RUN/tokenizer")


def test_examples_that_are_not_named_are_asked_for() -> None:
    words = [
        word
        for file in ("base", "model/nemotron", "size/debug", "task/question-answering")
        for word in ("-c", f"{CONFIGS / file}.yaml")
    ]
    with pytest.raises(InputError, match=r"--data.source is not set: name the examples, as in --data.source=TableFiles"):
        DryCLI(words)
