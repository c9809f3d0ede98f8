"""The order of examples, and going on with it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn

from ngpt_lab.data import SequenceData, TableFiles
from ngpt_lab.data.loader import Rank
from ngpt_lab.data.tasks.examples import LabelledTexts
from ngpt_lab.data.tasks.loader import ExampleLoader, HeldOutExamples
from ngpt_lab.errors import InputError

RNG = np.random.default_rng(0)


class Grouped(LabelledTexts):
    """Texts of which some belong together."""

    groups = np.ones(0, np.int64)

    @property
    def sizes(self):
        return self.groups


def examples(count):
    return LabelledTexts([np.array([1 + number]) for number in range(count)], np.arange(count), 0, 0)


@given(count=st.integers(1, 50), size=st.integers(1, 8), seed=st.integers(0, 3))
def test_every_epoch_visits_each_example_once_and_the_ranks_share_each_batch(count, size, seed):
    whole = ExampleLoader(examples(count), seed, "f", size)
    numbers = np.concatenate([whole.numbers(k) for k in range(-(-3 * count // size))])
    for epoch in range(3):
        assert sorted(numbers[epoch * count : (epoch + 1) * count]) == list(range(count))
    ranks = [ExampleLoader(examples(count), seed, "f", 2 * size, Rank(index, 2)) for index in range(2)]
    for k in range(3):
        shares = [rank.batch(k).labels for rank in ranks]
        assert sorted(np.concatenate(shares)) == sorted(ranks[0].numbers(k))
        assert len(shares[0]) == len(shares[1])


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=12), size=st.integers(1, 6), at_most=st.none() | st.integers(1, 20)
)
def test_what_belongs_together_stands_together_and_nothing_is_left_out(sizes, size, at_most):
    held = examples(sum(sizes))
    grouped = Grouped(held.texts, held.labels, 0, 0)
    Grouped.groups = np.array(sizes)
    loader = HeldOutExamples(grouped, at_most, size)
    batches = [batch.labels.tolist() for batch in loader]
    assert len(batches) == len(loader)
    starts = np.cumsum(sizes) - sizes
    asked = [list(range(starts[one], starts[one] + sizes[one])) for one in loader.asked]
    assert [number for batch in batches for number in batch] == [number for group in asked for number in group]
    assert len(asked) == min(len(sizes), at_most or len(sizes))
    for batch in batches:
        assert len(batch) <= size or batch in asked
        assert all(set(group) <= set(batch) or not set(group) & set(batch) for group in asked)


def test_ranks_have_equally_many_held_out_batches():
    loaders = [HeldOutExamples(examples(10), None, 4, Rank(index, 2)) for index in range(2)]
    found = [[batch.labels.tolist() for batch in loader] for loader in loaders]
    assert found == [[[0, 2], [4, 6], [8]], [[1, 3], [5, 7], [9]]]
    with pytest.raises(InputError, match=r"\(--data.eval_examples\) is 9, which 2 processes cannot share"):
        HeldOutExamples(examples(9), None, 4, Rank(0, 2))
    with pytest.raises(InputError, match=r"--data.batch_size is 3, which 2 processes cannot share"):
        ExampleLoader(examples(9), 0, "f", 3, Rank(0, 2))


def test_a_loader_goes_on_from_one_number():
    loader, other = ExampleLoader(examples(20), 1, "f", 4), ExampleLoader(examples(20), 1, "f", 4)
    batches = iter(loader)
    read = [next(batches).labels.tolist() for _ in range(5)]
    assert loader.state_dict() == {"next": 5}
    other.load_state_dict({"next": 3})
    assert next(iter(other)).labels.tolist() == read[3] == other.identity(3)["examples"]
    assert [loader.batch(k).labels.tolist() for k in range(5)] == read
    assert [ExampleLoader(examples(20), 2, "f", 4).batch(k).labels.tolist() for k in range(5)] != read


@pytest.mark.parametrize("setting", [{"seed": 1}, {"batch_size": 3}, {"seq_len": 5}, {"source": None}])
def test_training_does_not_go_on_over_other_examples(setting, table):
    rows = [{"text": f"{number}", "label": number % 2} for number in range(20)]
    files = {True: table("one", rows), False: table("two", rows[::-1])}

    def data(**settings):
        return SequenceData(**{"source": TableFiles(files["source" not in settings]), **settings, **no_source(settings)})

    def no_source(settings):
        return {"source": TableFiles(files[False])} if "source" in settings else {}

    before, now = data(), data(**setting)
    now.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    now.trainer.state.fn = TrainerFn.TESTING
    now.load_state_dict(before.state_dict())
    now.trainer.state.fn = TrainerFn.FITTING
    name = next(iter(setting)).replace("source", "fingerprint")
    with pytest.raises(InputError, match=rf"trained with data\.{name} .* start a new run"):
        now.load_state_dict(before.state_dict())
    now.load_state_dict(now.state_dict())
