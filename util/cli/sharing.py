"""Sequences shared out over the processes of torchrun: one per GPU, or several on a CPU."""
import os
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist


class Share:
    """This process's part of the work. Without torchrun there is one process, and it does everything.

    Attributes:
        rank, processes: which process this is, of how many.
    """

    def __init__(self):
        self.processes = int(os.environ.get("WORLD_SIZE", 1))
        self.rank = int(os.environ.get("RANK", 0))
        if self.processes > 1:
            if torch.cuda.is_available():
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
            self._joined = not dist.is_initialized()             # a study's processes know each other already
            if self._joined:
                dist.init_process_group("gloo")

    def mine(self, costs: Sequence[float]) -> list[int]:
        """Indices of the items that this process does: the dearest first, each to whoever has least so far."""
        loads = [0.0] * self.processes
        own = []
        for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
            idlest = loads.index(min(loads))
            loads[idlest] += costs[i]
            if idlest == self.rank:
                own.append(i)
        return sorted(own)

    def collect(self, results: dict[int, Any]) -> dict[int, Any] | None:
        """Everybody's results, in the first process; None in the others."""
        if self.processes == 1:
            return results
        gathered: list[dict[int, Any] | None] | None = [None] * self.processes if self.rank == 0 else None
        dist.gather_object(results, gathered)
        if self._joined:
            dist.destroy_process_group()
        if gathered is None:
            return None
        return {i: result for part in gathered for i, result in part.items()}
