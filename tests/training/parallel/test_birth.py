"""A backbone that was built on the meta device has the bits it would have been built with, and so has what stands on it."""

import pytest
import torch

from ngpt_lab.models import NGPT, Nemotron
from ngpt_lab.nn.slots import Dims
from ngpt_lab.training import AdamW, Cosine
from ngpt_lab.training.parallel.birth import allocate, bear, on_meta
from ngpt_lab.training.tasks import QuestionAnswering, SequenceClassification, TokenClassification

DIMS = Dims(31, 24, 2, 4, 2, 6, 40, "ngpt-short")
TASKS = {
    "sequences": lambda backbone: SequenceClassification(backbone, AdamW(), Cosine(), num_labels=3, pad_token_id=0),
    "tokens": lambda backbone: TokenClassification(backbone, AdamW(), Cosine(), num_labels=3),
    "spans": lambda backbone: QuestionAnswering(backbone, AdamW(), Cosine()),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", [NGPT, Nemotron])
def test_a_task_s_module_has_the_bits_it_would_have_been_built_with(task, kind):
    torch.manual_seed(0)
    built = TASKS[task](kind(DIMS))
    after = torch.get_rng_state()
    torch.manual_seed(0)
    made = TASKS[task](on_meta(kind, DIMS))
    allocate(made, torch.device("cpu"))
    bear(made, made.backbone, made.unborn)
    torch.testing.assert_close(dict(made.state_dict()), dict(built.state_dict()), rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), after)
