"""The one exception a user is meant to see."""


class InputError(ValueError):
    """Bad input: the message is one sentence that names the file, key or value, and what to do about it."""
