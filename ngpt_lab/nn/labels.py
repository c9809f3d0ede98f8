"""The label that is none."""

# Of a token that has no label, or no successor to be predicted; torch's cross-entropy leaves the same one out by default.
IGNORED = -100
