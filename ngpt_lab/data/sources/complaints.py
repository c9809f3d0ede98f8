"""What the datasets library says when it cannot read."""

from collections.abc import Iterator
from contextlib import contextmanager

from ngpt_lab.errors import InputError


@contextmanager
def complaints(where: str) -> Iterator[None]:
    """Errors of the datasets library as one sentence that begins with `where`.

    Raises:
        InputError: whatever it raises.
    """
    try:
        import datasets

        # It logs errors that it raises, and tells a server of every file that it opens.
        datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
        yield
    except InputError:
        raise
    # datasets and what it reads with (hub, network, formats) raise what they like, and it changes by version.
    except Exception as error:
        said = " ".join(str(error).split()).partition(" Example of usage")[0] or type(error).__name__
        raise InputError(f"{where} cannot be read: {said}") from error
