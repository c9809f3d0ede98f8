"""One of the processes of several runs, which it carries out one after another: python worker.py RANK PROCESSES PORT JOBS."""

import json
import os
import sys
from pathlib import Path


def main(rank, processes, port, jobs):
    os.environ |= {"LOCAL_RANK": rank, "NODE_RANK": "0", "WORLD_SIZE": processes}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    import torch

    from ngpt_lab.training.cli import CLI
    from ngpt_lab.training.module import BackboneModule
    from ngpt_lab.training.parallel.pieces import whole

    def keep(module, folder, name):
        weights = {key: whole(value).clone() for key, value in module.state_dict().items()}
        if rank == "0":
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(weights, folder.with_name(f"{folder.name}-{name}.pt"))

    configure, evaluate = BackboneModule.configure_model, BackboneModule.on_validation_epoch_end

    def configured(self):
        fresh = not self._distributed
        configure(self)
        if fresh:
            keep(self, Path(self.trainer.default_root_dir), "initial")

    def evaluated(self):
        evaluate(self)
        if self.trainer.state.fn == "validate":
            keep(self, Path(self.trainer.default_root_dir), "evaluated")

    BackboneModule.configure_model, BackboneModule.on_validation_epoch_end = configured, evaluated
    for arguments in json.loads(Path(jobs).read_text()):
        CLI(arguments)
        torch.distributed.barrier()


if __name__ == "__main__":
    main(*sys.argv[1:])
