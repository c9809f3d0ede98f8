"""A bench for the normalized Transformer and its baseline."""
