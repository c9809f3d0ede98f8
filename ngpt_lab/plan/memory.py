"""What one process of a run holds: its share of a rehearsed step."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from ngpt_lab.models import Decoder
from ngpt_lab.plan.layout import Layout
from ngpt_lab.plan.rehearsal import Rehearsal

# The shares of what a model's blocks and ends are made of, by the beginning of a parameter's name.
PARTS = {"embedding": "embedding", "attention": "attention", "mlp": "mlp", "lm_head": "head", "final": "final norm"}
STREAM = "stream"


@dataclass(frozen=True)
class Memory:
    """Bytes of one process.

    Args:
        weights: its share of them.
        gradients: its share of them.
        optimizer: its share of the state.
        gathered: whole weights and gradients of the parts at work and on their way, where their shares are gathered (fsdp2).
        buckets: the gradients' copy that is sent to the other processes (ddp).
        activations: what lives between forward and backward, by the part of the model that made it.
        work: what lives for a while at the fullest moment of a step.
    """

    weights: int
    gradients: int
    optimizer: int
    gathered: int
    buckets: int
    activations: Mapping[str, int]
    work: int

    @property
    def total(self) -> int:
        """All of it."""
        held = self.weights + self.gradients + self.optimizer + self.gathered + self.buckets
        return held + sum(self.activations.values()) + self.work


def memory(rehearsed: Rehearsal, decoder: Decoder, layout: Layout) -> Memory:
    """What a process holds whose step, were nothing sharded along the data axis, is `rehearsed`.

    fsdp2 gathers the weights of a block while it is at work and of the next one ahead of time, and holds those outside the
    blocks from the forward pass to the end of the backward pass; each with whole gradients until they are reduced. What is
    gathered arrives in one flat buffer, from which the weights are copied, and gradients leave in another: a block each.
    The buffers of what lies outside the blocks are not counted, since they come and go at the ends of a step, and neither
    are the copies in which a matrix that is cut across its columns is put together.

    Args:
        rehearsed: the step of a model with the sizes that one process has.
        decoder: that model.
        layout: how the run is divided.
    """
    states = rehearsed.weights + rehearsed.gradients + rehearsed.optimizer
    activations = sum(rehearsed.activations.values())
    return Memory(
        _share(rehearsed.weights, layout.shards),
        _share(rehearsed.gradients, layout.shards),
        _share(rehearsed.optimizer, layout.shards),
        gathered(decoder, rehearsed) if layout.shards > 1 else 0,
        rehearsed.gradients if layout.strategy == "ddp" else 0,
        rehearsed.activations,
        rehearsed.peak - states - activations,
    )


def gathered(decoder: Decoder, rehearsed: Rehearsal) -> int:
    """Bytes of whole weights and gradients: all outside the blocks, two blocks, and a block in the flat buffers."""
    entries = sum(parameter.numel() for parameter in decoder.parameters())
    blocks = sum(parameter.numel() for parameter in decoder.blocks.parameters())
    there = entries - blocks + (min(2, len(decoder.blocks)) + 1) * blocks // len(decoder.blocks)
    return (rehearsed.weights + rehearsed.gradients) * there // entries


def parameters_by_part(module: nn.Module) -> dict[str, int]:
    """Entries of the parameters of each part; one that parts share counts for the first."""
    counts: dict[str, int] = {}
    for name, parameter in module.named_parameters():
        part = next((PARTS[word] for word in name.split(".") if word in PARTS), STREAM)
        counts[part] = counts.get(part, 0) + parameter.numel()
    return counts


def _share(size: int, processes: int) -> int:
    return -(-size // processes)
