"""`ngpt-lab consolidate`."""

import os
import tempfile
from pathlib import Path

from ngpt_lab.arguments import OptionParser
from ngpt_lab.errors import InputError


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab consolidate`.

    Raises:
        InputError: bad input.
    """
    options = parser().parse_args(arguments)
    from ngpt_lab.training.checkpoints import is_folder  # slow to load: not needed to tell usage
    from ngpt_lab.training.run_weights import find_weights

    # Resolved, since last.ckpt is a link that moves on.
    given = options.checkpoint.resolve()
    path = given if is_folder(given) else find_weights(given)[1].resolve()
    if not is_folder(path):
        raise InputError(f"{path} is one file already: consolidate takes a checkpoint that is a folder (checkpoint.sharded)")
    out = options.out or path.with_name(f"{path.stem}.consolidated.ckpt")
    if out.exists():
        raise InputError(f"{out} is there already: name another file with --out")
    consolidate(path, out)
    print(out)


def consolidate(path: Path, out: Path) -> None:
    """Write a checkpoint that is a folder as one file.

    Its tensors lie in temporary files beside `out` meanwhile, which the system reads and writes: they need room on the disk
    twice, and hardly any in memory.

    Raises:
        InputError: it cannot be written, or `path` cannot be read.
    """
    import torch

    from ngpt_lab.files import writing
    from ngpt_lab.training.checkpoints import SafeCheckpointIO
    from ngpt_lab.training.parallel.folders import whole_checkpoint

    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        rooms = tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent)
    with rooms as folder:
        made = 0

        def on_disk(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
            nonlocal made
            made += 1
            file = Path(folder) / str(made)
            if shape.numel() == 0:
                return torch.empty(shape, dtype=dtype)
            with writing(out):
                reserve(file, shape.numel() * dtype.itemsize)
            return torch.from_file(str(file), shared=True, size=shape.numel(), dtype=dtype).view(shape)

        SafeCheckpointIO().save_checkpoint(whole_checkpoint(path, on_disk), out)


def reserve(path: Path, size: int) -> None:
    """Make a file of so many bytes, for which there is room: the system kills who writes to a map where there is none."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)


def parser() -> OptionParser:
    """The command's options."""
    parser = OptionParser(
        prog="ngpt-lab consolidate",
        description="Make one checkpoint file of a folder that several processes wrote, without starting them.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="RUN_OR_CKPT", help="a run's folder, for its newest, or a checkpoint")
    parser.add_argument("--out", type=Path, metavar="FILE", help="by default step-NNNNNN.consolidated.ckpt beside it")
    return parser
