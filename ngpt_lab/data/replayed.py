"""What the data modules of language models and of tasks share: a run that goes on sees the batches it would have seen."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn

from ngpt_lab.data.loader import Rank
from ngpt_lab.errors import InputError


class ReplayedDataModule(LightningDataModule, ABC):
    """Data whose batch k depends on k and on what `state_dict` names alone."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """What batch k depends on."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Refuse to go on training from a checkpoint whose batches were others; evaluating one on any text is fine.

        Raises:
            InputError: names what differs.
        """
        if self.trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            return
        for name, now in self.state_dict().items():
            if state_dict.get(name) != now:
                raise InputError(
                    f"the checkpoint was trained with data.{name} {state_dict.get(name)} and this run has {now}: "
                    "restore the data and its settings, or start a new run without the checkpoint"
                )

    def _rank(self) -> Rank:
        if self.trainer is None:
            return Rank()
        # Devices that compute a model together read the same rows.
        share = self.trainer.distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
        return Rank(share["rank"], share["num_replicas"])


def check_at_least(least: int, name: str, value: int) -> None:
    """Refuse a number below the least that makes sense.

    Raises:
        InputError: names the setting.
    """
    if value < least:
        raise InputError(f"--data.{name} is {value}: it must be at least {least}")
