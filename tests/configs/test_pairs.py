"""Every two ablation files: the same whichever comes first, or refused with both their names."""

import random
from itertools import combinations
from pathlib import Path

import pytest

from ngpt_lab.errors import InputError
from ngpt_lab.training.composition import check_ablations, touched
from ngpt_lab.training.composition import read_mapping as tree
from ngpt_lab.training.run_record import flatten

FILES = sorted((Path(__file__).parents[2] / "configs" / "ablation").glob("*.yaml"))
# The ablations that the baseline has parts for.
ON_NEMOTRON = set((Path(__file__).parent / "on_nemotron.txt").read_text().split())
NEMOTRONS = [file for file in FILES if file.stem in ON_NEMOTRON]
ABSENT = object()
TOUCHED = {file: list(touched(tree(file))) for file in FILES}


def clash(a, b):
    """Whether one file touches a key or part of the other's, by a count of its own."""
    return any(one[: len(two)] == two or two[: len(one)] == one for one in TOUCHED[a] for two in TOUCHED[b])


def refusal(*files):
    """What is said of files in this order, if they are refused."""
    try:
        check_ablations([word for file in files for word in ("-c", str(file))])
    except InputError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def alone(composer):
    """The config with one ablation, of each model and file."""
    return {
        (model, file): composer(model).laid_over(composer(model).base, file)
        for model, files in (("ngpt", FILES), ("nemotron", NEMOTRONS))
        for file in files
    }


def changes(before, after):
    """The keys that differ; ABSENT where one of the two configs lacks the key."""
    before, after = (flatten(config.as_dict()) for config in (before, after))
    keys = [key for key in {*before, *after} if before.get(key, ABSENT) != after.get(key, ABSENT)]
    return {key: after.get(key, ABSENT) for key in keys}


def assert_equal_or_refused(a, b, model, alone):
    if clash(a, b):
        for refused in (refusal(a, b), refusal(b, a)):
            assert str(a) in refused
            assert str(b) in refused
            assert "both change" in refused
    else:
        assert refusal(a, b) == refusal(b, a) == ""
        first, second = alone[model.name, a], alone[model.name, b]
        both = model.laid_over(first, b)
        assert both == model.laid_over(second, a)
        assert changes(model.base, both) == changes(model.base, first) | changes(model.base, second)


@pytest.mark.parametrize("a", FILES, ids=lambda file: file.stem)
def test_two_files_on_ngpt_compose_in_any_order_or_are_refused(a, composer, alone):
    for b in FILES[FILES.index(a) + 1 :]:
        assert_equal_or_refused(a, b, composer("ngpt"), alone)


@pytest.mark.parametrize("a", NEMOTRONS, ids=lambda file: file.stem)
def test_two_files_on_nemotron_compose_in_any_order_or_are_refused(a, composer, alone):
    for b in NEMOTRONS[NEMOTRONS.index(a) + 1 :]:
        assert_equal_or_refused(a, b, composer("nemotron"), alone)


COMPOSABLE = [pair for pair in combinations(FILES, 2) if not clash(*pair)]


@pytest.mark.parametrize("pair", random.Random(0).sample(COMPOSABLE, 12), ids=lambda pair: "-".join(f.stem for f in pair))
def test_a_sample_of_pairs_is_built_and_trained(pair, composer, alone, data):
    ngpt, (a, b) = composer("ngpt"), pair
    whole = ngpt.parsed(a, b)
    assert whole == ngpt.parsed(b, a) == ngpt.laid_over(alone["ngpt", a], b)
    assert ngpt.first_loss(whole, data).isfinite()
