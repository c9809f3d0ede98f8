"""How many floating point operations a training step takes, by one stated formula."""

from ngpt_lab.models.decoder import Decoder
from ngpt_lab.nn.linear import TokenEmbedding, stream_matrices


def flops_per_token(decoder: Decoder, seq_len: int) -> int:
    """Operations to train on one token of a sequence of `seq_len`: 6 N + 6 L T H D.

    N counts the entries of the matrices that multiply (the input embedding is looked up, not multiplied), two operations
    forward and four backward each. Causal attention forms, forward, 2 products of T/2 keys by H D channels for a token and
    layer, 2 L T H D operations, and three times that with the backward pass. Norms, scales and activations are left out.
    """
    dims, head = decoder.dims, decoder.lm_head
    tied = head is not None and decoder.embedding.weight is getattr(head, "matrix", decoder.embedding).weight
    entries = sum(m.weight.numel() for _, m in stream_matrices(decoder) if tied or not isinstance(m, TokenEmbedding))
    return 6 * entries + 6 * dims.n_layers * seq_len * dims.n_heads * dims.d_head
