"""What the processes of a run send each other."""

from ngpt_lab.bench.floor import PRODUCT_BYTES, STREAM_BYTES
from ngpt_lab.nn.slots import Dims
from ngpt_lab.plan.layout import Layout
from ngpt_lab.plan.rehearsal import Rehearsal


def sent(
    rehearsed: Rehearsal, dims: Dims, layout: Layout, micro_batch: tuple[int, int], accumulated: int, precision: str
) -> int:
    """Bytes that one process sends in an optimizer step, every collective going round a ring of n.

    - ddp: all gradients G reduced once, 2 G (n - 1) / n;
    - fsdp2: in each micro-batch all weights W gathered forward and again backward, and gradients scattered,
      (2 W + G) (n - 1) / n;
    - tp: in each micro-batch and layer each of two sublayers' outputs is added up, and the gradients of what they read,
      2 (2 B T C p + 2 B T C s) (n - 1) / n, with p and s bytes of an entry of a product and of the stream.

    Args:
        rehearsed: a step of what one process has where nothing is sharded along the data axis.
        dims: the model's sizes.
        layout: how the run is divided.
        micro_batch: windows and tokens of a window that a process takes at once.
        accumulated: micro-batches of a step.
        precision: Lightning's name of it.
    """
    weights, gradients = rehearsed.weights, rehearsed.gradients
    across = accumulated * (2 * weights + gradients) if layout.shards > 1 else 2 * gradients
    stream = micro_batch[0] * micro_batch[1] * dims.d_model * (PRODUCT_BYTES[precision] + STREAM_BYTES)
    along = 2 * dims.n_layers * accumulated * 2 * stream
    return int(across * (layout.data - 1) / layout.data + along * (layout.tensor - 1) / layout.tensor)
