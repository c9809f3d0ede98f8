"""What a terminal shows while tokens are made."""

from types import TracebackType

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Bar:
    """A line that tells the split, how far it is and how long it takes; none where there is no terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TextColumn("{task.fields[size]}, {task.fields[speed]:,.1f} MB/s, {task.fields[tokens]:,} tokens"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=2,
        )
        self._task = self._progress.add_task("", total=None, size="", speed=0.0, tokens=0)
        self._split, self._first = "", 0

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def show(self, split: str, size: int, tokens: int, total: int | None) -> None:
        """The state of a split: bytes and tokens so far, and bytes in all where they are known."""
        if split != self._split:
            self._progress.reset(self._task, description=split, total=total, completed=size)
            self._split, self._first = split, size
        seconds = self._progress.tasks[self._task].elapsed or 0.0
        speed = (size - self._first) / 1e6 / seconds if seconds else 0.0
        told = f"{size / 1e6:,.0f} MB" if total is None else f"{size / 1e6:,.0f} of {total / 1e6:,.0f} MB"
        self._progress.update(self._task, completed=size, size=told, speed=speed, tokens=tokens)
