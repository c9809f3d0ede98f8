"""Fine-tuning through the command line: what is made to be learnt is learnt, by both backbones, on the sphere and off it."""

import json
import random
import shutil
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ngpt_lab.errors import InputError
from ngpt_lab.nn.linear import weight_error

CONFIGS = Path(__file__).parents[2] / "configs"
WORDS = ["river", "stone", "cloud", "maple", "amber", "coral", "pearl", "flint", "cedar", "lotus", "raven", "birch", "onyx"]
Row = dict[str, Any]


def config(*names: str) -> list[str]:
    """The arguments that name config files."""
    return [word for name in names for word in ("-c", str(CONFIGS / f"{name}.yaml"))]


def sequence(draw: random.Random) -> Row:
    """Which of three words stands anywhere in the text."""
    label = draw.choice(["rises", "falls", "stays"])
    words = draw.choices(WORDS, k=9)
    words.insert(draw.randrange(10), label)
    return {"text": " ".join(words), "label": label}


def tokens(draw: random.Random) -> Row:
    """After a title come a person's two names, after a preposition a place: any words, so that only what is before tells."""
    words, tags = [], []
    for _ in range(5):
        first, *rest = draw.choice([[("doctor", "O"), "B-PER", "I-PER"], [("near", "O"), "B-LOC"], [(draw.choice(WORDS), "O")]])
        words += [first[0], *draw.choices(WORDS, k=len(rest))]
        tags += [first[1], *rest]
    return {"tokens": words, "ner_tags": tags}


def span(draw: random.Random) -> Row:
    """The two words after the marker."""
    words = draw.choices(WORDS, k=10)
    at = draw.randrange(9)
    before, answer = " ".join([*words[:at], "marker"]) + " ", " ".join(words[at : at + 2])
    answers = {"text": [answer], "answer_start": [len(before)]}
    return {"question": "what follows", "context": before + " ".join(words[at:]), "answers": answers}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token is a word, or a byte of one that is not known."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer, trained.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=384, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False)
    known = [*WORDS, "rises", "falls", "stays", "doctor", "near", "marker", "what", "follows"]
    trained.train_from_iterator([" ".join(known)] * 9, trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    trained.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    return folder


@pytest.fixture(scope="module")
def pretrained(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of a small language model."""
    from ngpt_lab.training.cli import CLI

    made: dict[str, Path] = {}

    def of(model: str) -> Path:
        if model not in made:
            made[model] = tmp_path_factory.mktemp("pretrained") / model
            draw = random.Random(0)
            text = made[model].parent / "text.txt"
            text.write_text("\n".join(" ".join(draw.choices(WORDS, k=9)) for _ in range(3000)))
            data = ["--data.source=TextFiles", f"--data.source.files={text}", "--data.eval_windows=8"]
            size = ["--model.backbone.dims.vocab_size=384", "--trainer.max_steps=30", "--trainer.val_check_interval=30"]
            CLI(["fit", *config("base", f"model/{model}", "size/debug"), *data, *size, *on(made[model], tokenizer)])
        return made[model]

    return of


def on(folder: Path, tokenizer: Path | None = None) -> list[str]:
    """The arguments that say where a run goes, and how it tokenizes if not in bytes."""
    where = [f"--trainer.default_root_dir={folder}", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    text = ["--data.tokenizer=TokenizerFolder", f"--data.tokenizer.path={tokenizer}"] if tokenizer else []
    return [*where, *text, "--trainer.logger=false"]


def examples(folder: Path, make: Callable[[random.Random], Row]) -> tuple[list[str], list[Row]]:
    """The arguments that name made examples, and those of validation."""
    rows = {}
    for split, count in {"files": 1500, "validation": 150}.items():
        draw = random.Random(split)
        rows[split] = [make(draw) for _ in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[split]))
    return ["--data.source=TableFiles", *(f"--data.source.{split}={folder / split}.jsonl" for split in rows)], rows[
        "validation"
    ]


def majority(rows: list[Row]) -> float:
    """The share of the labels that are the most frequent one."""
    labels = [label for row in rows for label in row.get("ner_tags", [row.get("label", str(row.get("answers")))])]
    return Counter(labels).most_common(1)[0][1] / len(labels)


# What is made, settings beside the file's, and by how much the share of right labels is to exceed the majority's.
TASKS: dict[str, tuple[Callable[[random.Random], Row], list[str], str, float]] = {
    "sequence-classification": (sequence, ["--model.num_labels=3"], "accuracy", 0.5),
    "token-classification": (tokens, ["--model.num_labels=4", "--data.tagged=first"], "accuracy", 0.35),
    "question-answering": (span, ["--data.stride=8"], "exact_match", 0.8),
}
QUICK = ["--data.seq_len=48", "--trainer.max_steps=80", "--trainer.val_check_interval=80", "--model.optimizer.lr=3.0e-3"]


@pytest.mark.parametrize("model", ["ngpt", "nemotron"])
@pytest.mark.parametrize("task", TASKS)
def test_a_pretrained_backbone_learns_a_task_far_better_than_the_majority(
    task: str, model: str, pretrained: Callable[[str], Path], tokenizer: Path, tmp_path: Path
) -> None:
    from ngpt_lab.training.cli import CLI

    make, settings, score, margin = TASKS[task]
    source, held_out = examples(tmp_path, make)
    begun = ["--pretrained", str(pretrained(model))]
    folder = tmp_path / "run"
    cli = CLI(["fit", *config(f"task/{task}"), *begun, *source, *settings, *QUICK, *on(folder, tokenizer)])
    final = json.loads((folder / "run.json").read_text())["final"]
    assert final[f"val/{score}"] > majority(held_out) + margin
    # Nothing is found by the majority, which is outside of every entity.
    assert ("val/span_f1" in final) == (task == "token-classification")
    assert final.get("val/span_f1", 1.0) > 0.8
    backbone = cli.model.backbone
    assert backbone.lm_head is None
    if model == "ngpt":
        assert weight_error(backbone) < 1e-5
        lengths = torch.cat([p.detach().norm(dim=-1) for name, p in cli.model.head.named_parameters() if "weight" in name])
        assert (lengths - 1).abs().min() > 1e-3


@pytest.mark.parametrize(
    ("problem", "model", "score"), [("MultiLabel", "ngpt", "exact_match"), ("Regression", "nemotron", "pearson")]
)
def test_several_classes_and_numbers_are_learnt_from_nothing(problem: str, model: str, score: str, tmp_path: Path) -> None:
    from ngpt_lab.training.cli import CLI

    def make(draw: random.Random) -> Row:
        words = draw.choices(["aa", "bb", "cc"], k=draw.randrange(1, 4))
        return {"text": " ".join(words), "label": sorted(set(words)) if problem == "MultiLabel" else words.count("bb") / 2}

    source, held_out = examples(tmp_path, make)
    name, count = {"MultiLabel": ("multi_label_classification", 3), "Regression": ("regression", 1)}[problem]
    labels = [f"--model.problem={problem}", f"--data.problem={name}", f"--model.num_labels={count}"]
    files = config("base", f"model/{model}", "size/debug", "task/sequence-classification")
    CLI(["fit", *files, *source, *labels, *QUICK, *on(tmp_path / "run")])
    final = json.loads((tmp_path / "run" / "run.json").read_text())["final"]
    assert final[f"val/{score}"] > 0.8
    # The most frequent set of classes; and what a constant is off by.
    values = [row["label"] for row in held_out]
    if problem == "MultiLabel":
        assert Counter(map(str, values)).most_common(1)[0][1] / len(values) < 0.3
    else:
        assert final["val/mse"] < statistics.pvariance(values) / 3


def test_a_task_that_goes_on_is_the_task_that_never_stopped(
    tmp_path: Path, cut_back: Callable[[Path, int], None], read: dict[str, Callable[[Path], Any]]
) -> None:
    from ngpt_lab.training.cli import CLI

    source, _ = examples(tmp_path, tokens)
    settings = ["--model.num_labels=4", "--trainer.max_steps=6", "--trainer.val_check_interval=3", "--data.batch_size=4"]
    saved = ["--checkpoint.every_n_train_steps=2", "--checkpoint.keep=null", "--trainer.log_every_n_steps=1"]
    files = config("base", "model/ngpt", "size/debug", "task/token-classification")
    words = ["fit", *files, *source, *settings, *saved, "--data.seq_len=64"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    CLI([*words, *on(whole)])
    shutil.copytree(whole, broken)
    cut_back(broken, 4)
    CLI([*words, *on(broken), "--ckpt_path=auto"])
    assert read["timeless"](broken) == read["timeless"](whole)
    ours, theirs = (torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (broken, whole))
    assert all(torch.equal(ours["state_dict"][name], value) for name, value in theirs["state_dict"].items())
    with pytest.raises(InputError, match=r"the data is 4: set model\.init_args\.num_labels to 4"):
        CLI([*words, *on(tmp_path / "other"), "--model.num_labels=3"])
