"""Token classification."""

from torch import Tensor

from ngpt_lab.data.tasks.batches import TextBatch
from ngpt_lab.models import Decoder
from ngpt_lab.nn.checkpointing import ActivationCheckpointing
from ngpt_lab.nn.heads import TokenHead, class_loss
from ngpt_lab.nn.labels import IGNORED
from ngpt_lab.training.evaluation import Evaluation
from ngpt_lab.training.optimizers import OptimizerFactory
from ngpt_lab.training.schedules import Schedule
from ngpt_lab.training.tasks.module import SPLITS, TaskModule
from ngpt_lab.training.tasks.problems import SingleLabel, class_metrics
from ngpt_lab.training.tasks.span_f1 import SpanF1, are_spans


class TokenClassification(TaskModule):
    """A label of every token; -100 where a token has none.

    Where the data's label names are tags of entities (O, B-PER, I-PER, ...), entities are counted too.

    Args:
        backbone: the decoder, whose own head is taken off.
        optimizer: makes the optimizer.
        schedule: the learning rate over the run.
        num_labels: how many classes.
        dropout: of the stream in front of the head.
        compile: whether to compile the backbone with torch.compile; needs a compiler on the machine.
        activation_checkpointing: which blocks compute activations again in the backward pass; by default none.
    """

    head: TokenHead

    def __init__(
        self,
        backbone: Decoder,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        num_labels: int,
        dropout: float = 0.1,
        compile: bool = False,
        activation_checkpointing: ActivationCheckpointing | None = None,
    ) -> None:
        self.num_labels = SingleLabel(num_labels).num_labels
        head = TokenHead(backbone.dims.d_model, num_labels, dropout, backbone.initializer_range)
        super().__init__(backbone, head, optimizer, schedule, compile, activation_checkpointing)

    def setup(self, stage: str) -> None:
        """See `BackboneModule`; and check that the data's labels are the model's."""
        super().setup(stage)
        self.expect_of_the_data(num_labels=self.num_labels)
        names = list(getattr(getattr(self.trainer, "datamodule", None), "label_names", []))
        for split in SPLITS:
            spans = {"spans": SpanF1(names)} if are_spans(names) else {}
            self.evaluations[split] = Evaluation({**class_metrics(self.num_labels), **spans})

    def scores(self, batch: TextBatch) -> Tensor:
        """(B, T, num_labels)."""
        return self.head(self.features(batch))

    def loss(self, batch: TextBatch) -> Tensor:
        """See `TaskModule`."""
        return class_loss(self.scores(batch), batch.labels)

    def evaluate(self, batch: TextBatch, split: str) -> None:
        """See `TaskModule`."""
        scores = self.scores(batch)
        self.evaluations[split].update(class_loss(scores, batch.labels), (batch.labels != IGNORED).sum())
        self.evaluations[split].compare(scores.argmax(dim=-1), batch.labels)

    def predict_step(self, batch: TextBatch, batch_idx: int) -> dict[str, Tensor]:
        """`labels` (B, T), -100 for padding."""
        return {"labels": self.scores(batch).argmax(dim=-1).masked_fill(batch.mask == 0, IGNORED)}
