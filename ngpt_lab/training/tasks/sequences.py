"""Sequence classification."""

from torch import Tensor

from ngpt_lab.data.tasks.batches import TextBatch
from ngpt_lab.errors import InputError
from ngpt_lab.models import Decoder
from ngpt_lab.nn.checkpointing import ActivationCheckpointing
from ngpt_lab.nn.heads import SequenceHead
from ngpt_lab.training.evaluation import Evaluation
from ngpt_lab.training.optimizers import OptimizerFactory
from ngpt_lab.training.schedules import Schedule
from ngpt_lab.training.tasks.module import SPLITS, TaskModule
from ngpt_lab.training.tasks.problems import ProblemFactory, SingleLabel


class SequenceClassification(TaskModule):
    """Labels of whole texts, read at the last token.

    Args:
        backbone: the decoder, whose own head is taken off.
        optimizer: makes the optimizer.
        schedule: the learning rate over the run.
        num_labels: how many classes, or numbers in a label.
        pad_token_id: what the data's texts are padded with.
        problem: what the labels are: SingleLabel, MultiLabel or Regression.
        compile: whether to compile the backbone with torch.compile; needs a compiler on the machine.
        activation_checkpointing: which blocks compute activations again in the backward pass; by default none.
    """

    head: SequenceHead

    def __init__(
        self,
        backbone: Decoder,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        num_labels: int,
        pad_token_id: int | None = None,
        problem: ProblemFactory = SingleLabel,
        compile: bool = False,
        activation_checkpointing: ActivationCheckpointing | None = None,
    ) -> None:
        kind = problem(num_labels)
        head = SequenceHead(backbone.dims.d_model, num_labels, pad_token_id, backbone.initializer_range)
        super().__init__(backbone, head, optimizer, schedule, compile, activation_checkpointing)
        self.problem = kind
        self.evaluations = {split: Evaluation(self.problem.metrics()) for split in SPLITS}

    def setup(self, stage: str) -> None:
        """See `BackboneModule`; and check that the data's labels are the model's."""
        super().setup(stage)
        problem = getattr(getattr(self.trainer, "datamodule", None), "problem", self.problem.name)
        if problem != self.problem.name:
            raise InputError(
                f"the data's problem is {problem}, and the model's is {type(self.problem).__name__} ({self.problem.name}): "
                "set data.problem or model.init_args.problem"
            )
        self.expect_of_the_data(num_labels=self.problem.num_labels, pad_token_id=self.head.pad_token_id)

    def scores(self, batch: TextBatch) -> Tensor:
        """(B, num_labels)."""
        return self.head(self.features(batch), batch.tokens)

    def loss(self, batch: TextBatch) -> Tensor:
        """See `TaskModule`."""
        return self.problem.loss(self.scores(batch), batch.labels)

    def evaluate(self, batch: TextBatch, split: str) -> None:
        """See `TaskModule`."""
        scores = self.scores(batch)
        self.evaluations[split].update(self.problem.loss(scores, batch.labels), len(batch.labels))
        predictions = self.problem.predictions(scores)
        labels = batch.labels.to(predictions.dtype)
        self.evaluations[split].compare(predictions, labels.view_as(predictions))

    def predict_step(self, batch: TextBatch, batch_idx: int) -> dict[str, Tensor]:
        """`scores` (B, num_labels)."""
        return {"scores": self.scores(batch).float()}
