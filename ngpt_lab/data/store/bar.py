"""What a terminal shows while tokens are made."""

from types import TracebackType

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Bar:
    """A line that tells the split, megabytes, megabytes a second and tokens; none where there is no terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TextColumn("{task.fields[megabytes]:,.0f} MB, {task.fields[speed]:,.1f} MB/s, {task.fields[tokens]:,} tokens"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=2,
        )
        self._task = self._progress.add_task("", total=None, megabytes=0.0, speed=0.0, tokens=0)
        self._split, self._first = "", 0

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def show(self, split: str, size: int, tokens: int) -> None:
        """The state of a split: bytes and tokens so far."""
        if split != self._split:
            self._progress.reset(self._task, description=split)
            self._split, self._first = split, size
        seconds = self._progress.tasks[self._task].elapsed or 0.0
        speed = (size - self._first) / 1e6 / seconds if seconds else 0.0
        self._progress.update(self._task, megabytes=size / 1e6, speed=speed, tokens=tokens)
