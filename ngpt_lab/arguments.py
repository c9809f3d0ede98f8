"""Command line options whose errors are one sentence."""

import argparse
from typing import NoReturn

from ngpt_lab.errors import InputError


class OptionParser(argparse.ArgumentParser):
    """argparse's parser, which refuses without printing its usage."""

    def error(self, message: str) -> NoReturn:
        """Refuse the input.

        Raises:
            InputError: always.
        """
        raise InputError(f"{message} ({self.prog} --help tells more)")
