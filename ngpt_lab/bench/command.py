"""`ngpt-lab bench`: hands each measurement to its module."""

from importlib import import_module

from ngpt_lab.errors import InputError

MEASUREMENTS = {
    "step": "what a training step costs, arms interleaved",
    "data": "how fast windows are read and text is tokenized",
    "generate": "how fast a prompt is read and continued, implementations interleaved",
    "memory": "what memory a run needs to tokenize and to read stores of two sizes",
    "scale": "how a run's speed grows with its processes, strategies interleaved",
    "projection": "what it costs to put all matrices back on the sphere",
    "loss": "what the loss over a vocabulary costs: whole logits, chunks, torch's own",
    "bounds": "measurements of a file, held against its bounds",
}


def main(arguments: list[str]) -> None:
    """Carry out `ngpt-lab bench`.

    Raises:
        InputError: bad input.
    """
    what = arguments[0] if arguments else "--help"
    if what in MEASUREMENTS:
        import_module(f"ngpt_lab.bench.{what}_command").main(arguments[1:])
    elif what in ("-h", "--help"):
        print("usage: ngpt-lab bench WHAT ...\n")
        print("\n".join(f"  {name:<12}{told}" for name, told in MEASUREMENTS.items()))
        print("\nngpt-lab bench WHAT --help tells more.")
    else:
        raise InputError(f"bench does not measure {what!r}: choose one of {', '.join(MEASUREMENTS)}")
