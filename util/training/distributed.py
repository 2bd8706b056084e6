"""The processes of a run: one, or those that torchrun started on one machine or many (NCCL on CUDA, gloo on CPU)."""
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from inspect import signature
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from util.errors import InputError

T = TypeVar("T")

KEEP_BUFFERS = {"forward_sync_buffers" if "forward_sync_buffers" in signature(DistributedDataParallel).parameters
                else "broadcast_buffers": False}
"""Buffers do not change in training. Torch 2.13 has another name for saying so, and warns about the first."""

PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: validation differs in length."""


class Team:
    """This process among the others.

    Args:
        device: auto, cpu or cuda.

    Raises:
        InputError: CUDA is asked for and absent.
    """

    def __init__(self, device: str = "auto"):
        self.processes = int(os.environ.get("WORLD_SIZE", 1))
        self.rank = int(os.environ.get("RANK", 0))
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("--device cuda: no CUDA device is available; use --device cpu")
        on_cuda = device != "cpu" and torch.cuda.is_available()
        local = int(os.environ.get("LOCAL_RANK", 0))
        if on_cuda and local >= torch.cuda.device_count():
            raise InputError(f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}; "
                             "lower torchrun's --nproc_per_node")
        self.device = torch.device("cuda", local) if on_cuda else torch.device("cpu")
        if on_cuda:
            torch.cuda.set_device(self.device)
        if self.processes > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if on_cuda else "gloo", timeout=PATIENCE)

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def say(self, message: str) -> None:
        """Print once, above a progress bar."""
        if self.leads:
            from tqdm import tqdm
            tqdm.write(message)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, equal on all of them."""
        if self.processes > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list:
        """The value of every process, on all of them."""
        if self.processes == 1:
            return [value]
        values: list = [None] * self.processes
        dist.all_gather_object(values, value)
        return values

    def led(self, question: Callable[[], T]) -> T:
        """The leader's answer, on every process: file systems of several machines differ, and change meanwhile.

        Raises:
            InputError: the leader could not answer.
        """
        if self.processes == 1:
            return question()
        answer: list = [None]
        if self.leads:
            try:
                answer = [question()]
            except InputError as error:
                answer = [error]
        dist.broadcast_object_list(answer, src=0)
        if isinstance(answer[0], InputError):
            raise answer[0]
        return answer[0]

    def wait(self) -> None:
        """Until every process is here."""
        if self.processes > 1:
            dist.barrier()

    def share(self, module: nn.Module, *example: Tensor, static: bool = True, varying: bool = False
              ) -> nn.Module:
        """The module with gradients averaged over the processes in backward.

        Stages leave parameters without gradient, and so does `q_feature`: what gets none from the example is frozen,
        or every process would have to search for it in every step. Where passes vary, every process does.

        Args:
            example: arguments of the module, of which the first result is a loss.
            static: every backward pass is alike and shares its gradients.
            varying: which parameters a pass uses differs from step to step.
        """
        if self.processes == 1:
            return module
        if not varying:
            module(*example)[0].sum().backward()
            for parameter in module.parameters():
                parameter.requires_grad_(parameter.grad is not None)
                parameter.grad = None
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids, static_graph=static and not varying,
                                       find_unused_parameters=varying, gradient_as_bucket_view=True, **KEEP_BUFFERS)

    def peak_memory(self) -> float | None:
        """Most memory of the GPU that was in use since this was last asked, in GB; None on a CPU."""
        if self.device.type != "cuda":
            return None
        peak = torch.cuda.max_memory_allocated(self.device) / 1e9
        torch.cuda.reset_peak_memory_stats(self.device)
        return peak


@contextmanager
def team_of(device: str = "auto", gpus: int = 1) -> Iterator[Team]:
    """The processes of a run, who know each other as long as the outermost such block lasts.

    A process joins once: who joins again may find the addresses of the first time, where nobody listens any more.

    Args:
        device: auto, cpu or cuda.
        gpus: 0 makes auto the CPU.

    Raises:
        InputError: CUDA is asked for and absent.
    """
    first = not dist.is_initialized()
    try:
        yield Team("cpu" if device == "auto" and gpus == 0 else device)
    finally:
        if first and dist.is_initialized():
            dist.destroy_process_group()
