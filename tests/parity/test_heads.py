"""Heads on an imported Nemotron compute what Hugging Face's do: to 1e-10, in float32 to 1e-5 and QA's gradients to 1e-4."""

import pytest
import torch
from torch import Tensor, nn

from ngpt_lab.interop import import_weights
from ngpt_lab.models import Decoder
from ngpt_lab.nn.heads import SequenceHead, SpanHead, TokenHead, class_loss, span_loss

PREFIXES = {"seqcls": "model.", "tokcls": "model.", "qa": "transformer."}
# Zero in exact arithmetic: adding the same to all logits changes no softmax.
ROUNDING_NOISE = {"qa_outputs.bias", "transformer.norm.bias"}


class Sequences(nn.Module):
    """The golden file's model; `task` is in its name."""

    task = "seqcls"

    def __init__(self, backbone: Decoder, d_model: int, labels: int) -> None:
        super().__init__()
        self.backbone, self.head = backbone, self.make_head(d_model, labels)

    def make_head(self, d_model: int, labels: int) -> nn.Module:
        return SequenceHead(d_model, labels, pad_token_id=0)

    def forward(self, golden) -> dict[str, Tensor]:
        x = self.backbone.features(golden["input_ids"], attention_mask=golden["attention_mask"])
        return self.outputs(x, golden)

    def outputs(self, x, golden):
        logits = self.head(x, golden["input_ids"])
        return {"logits": logits, "loss": class_loss(logits, golden["labels"])}


class Tokens(Sequences):
    task = "tokcls"

    def make_head(self, d_model, labels):
        return TokenHead(d_model, labels)

    def outputs(self, x, golden):
        logits = self.head(x)
        # Left of a row's first token there is nothing to see, and an implementation may put anything.
        seen = golden["attention_mask"].cumsum(dim=1).bool()[..., None]
        shown = torch.where(seen, logits.double(), golden["logits"])
        return {"logits": shown, "loss": class_loss(logits, golden["labels"])}


class Spans(Sequences):
    task = "qa"

    def make_head(self, d_model, labels):
        return SpanHead(d_model)

    def outputs(self, x, golden):
        starts, ends = self.head(x)
        loss = span_loss(starts, ends, golden["start_positions"], golden["end_positions"])
        return {"start_logits": starts, "end_logits": ends, "loss": loss}


@pytest.fixture
def model(head_golden) -> tuple[Sequences, dict[str, str]]:
    """The file's model with its weights, and the reference's name of each of our parameters."""
    golden = head_golden
    kind = next(kind for kind in (Sequences, Tokens, Spans) if kind.task in golden.path.name)
    prefix = PREFIXES[kind.task]
    weights = {name: t.to(golden.dtype) for name, t in golden.below("param.").items()}
    backbone = {f"model.{name.removeprefix(prefix)}": t for name, t in weights.items() if name.startswith(prefix)}
    # The import is that of a language model, whose head is a copy of the embedding here.
    decoder = import_weights("hf-nemotron", backbone, {**golden.config, "tie_word_embeddings": True})
    decoder.take_head()
    module = kind(decoder, decoder.dims.d_model, len(golden.config["id2label"])).to(golden.dtype).eval()
    module.head.load_state_dict({name: t for name, t in weights.items() if not name.startswith(prefix)})
    theirs = {f"backbone.{name}": their.replace("model.", prefix, 1) for name, their in golden.names.theirs.items()}
    return module, theirs | {f"head.{name}": name for name in module.head.state_dict()}


def test_the_logits_and_the_loss_are_the_reference_s(model, head_golden):
    for name, ours in model[0](head_golden).items():
        head_golden.assert_close(name, ours)


def test_every_gradient_is_the_reference_s(model, head_golden):
    golden, (module, names), theirs = head_golden, model, head_golden.below("grad.")
    module(golden)["loss"].backward()
    # Hugging Face's embedding learns nothing about the padding token.
    module.backbone.embedding.weight.grad[golden.config["pad_token_id"]] = 0
    ours = {names[name]: p.grad for name, p in module.named_parameters()}
    assert set(ours) == set(theirs)
    largest = max(float(t.abs().max()) for t in theirs.values())
    allowed = 1e-4 if module.task == "qa" and golden.dtype == torch.float32 else golden.tolerance
    for name, gradient in ours.items():
        off = (gradient.double() - theirs[name]).abs().max() / theirs[name].abs().max().clamp_min(1e-3 * largest)
        assert off <= allowed, f"{name} is off by {off:.1e}"
        assert module.task != "qa" or (theirs[name].abs().max() < 1e-13 * largest) == (name in ROUNDING_NOISE)
