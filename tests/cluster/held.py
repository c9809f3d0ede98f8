"""What lets the test find a run in its middle; runs are told to take the callback."""

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

STEP = 25


class Held(Callback):
    """At its 25th step a run waits while the sweep's folder has a file `hold`, and says that it does."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        folder = Path(trainer.default_root_dir)
        sweep = folder.parents[1]
        while trainer.global_step == STEP and (sweep / "hold").exists():
            (sweep / f"{folder.name}.held").touch()
            time.sleep(0.1)
