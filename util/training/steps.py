"""One optimizer step after another, decided on the device: the host neither waits for a step nor lets a bad one pass.

Whether a step is taken (loss and gradients usable) is computed where the gradients are; Adam is told by the flag that
PyTorch's gradient scaler uses. What the host wants to know arrives later, at the latest when `drain` asks for it.
"""
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Adam

HUGE_LOSS = 10_000
"""A step with a larger loss is left out, unless a phase says otherwise."""

GRADIENT_BOUND = 5.0
"""Gradients are clipped to plus or minus this, value by value."""


@dataclass(frozen=True)
class StepReport:
    """What became of a step.

    Attributes:
        sums: the values that were handed over.
        norm: of all gradients together, before they were clipped.
        taken: whether the parameters were changed.
    """
    sums: tuple[float, ...]
    norm: float
    taken: bool


class OptimizerSteps:
    """Takes steps with Adam.

    Args:
        groups: of the parameters that are trained, as of `torch.optim.Adam`; the learning rate of each is the phase's
            times its `factor`.
        lag: steps that the host may be behind the device: 0 waits for each; 1 lets a GPU go on.
        clip_norm: bound of the norm of all gradients, in place of GRADIENT_BOUND for each value.
        skip_above: a step with a larger loss is left out.
    """

    def __init__(self, groups: Sequence[dict], lr: float, lag: int, clip_norm: float | None = None,
                 skip_above: float = HUGE_LOSS):
        self.optimizer = Adam(groups, lr=lr, fused=True)
        self._parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.set_rate(lr)
        self._lag, self._clip_norm = lag, clip_norm
        self._skip_above = skip_above
        self._pending: deque[tuple[Tensor, torch.cuda.Event | None]] = deque()

    def load(self, state: dict) -> bool:
        """Go on from the state of an interrupted phase. False, and nothing done, where it had other groups."""
        def shapes(groups: Sequence[dict]) -> list[tuple[float, int]]:
            return [(group.get("factor", 1.0), len(group["params"])) for group in groups]
        if shapes(state["param_groups"]) != shapes(self.optimizer.param_groups):
            return False
        self.optimizer.load_state_dict(state)
        return True

    def set_rate(self, lr: float) -> None:
        """The learning rate from the next step on, before the factors of groups."""
        self.lr = lr
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("factor", 1.0)

    def take(self, loss: Tensor, sums: Tensor) -> None:
        """One step, or its omission, with the gradients that are there; they are gone afterwards.

        A step is left out when a gradient is not finite: clipping would make NaN of an infinite one, and Adam would
        never forget it.

        Args:
            loss: mean loss of the batch, a scalar on the device, equal on all processes.
            sums: float64 (n,), for the report.
        """
        norm = nn.utils.get_total_norm(parameter.grad for parameter in self._parameters if parameter.grad is not None)
        usable = (loss <= self._skip_above) & norm.isfinite()         # False for NaN
        if self._clip_norm is None:
            nn.utils.clip_grad_value_(self._parameters, GRADIENT_BOUND)
        else:
            nn.utils.clip_grads_with_norm_(self._parameters, self._clip_norm, norm)
        self.optimizer.found_inf = (~usable).float()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._send(torch.cat((sums.double(), torch.stack((norm.double(), usable.double())))))

    def reports(self) -> Iterator[StepReport]:
        """Of the steps that the host is allowed to wait for, oldest first."""
        while len(self._pending) > self._lag:
            yield self._receive()

    def drain(self) -> Iterator[StepReport]:
        """Of all steps that have not been reported."""
        while self._pending:
            yield self._receive()

    def _send(self, values: Tensor) -> None:
        if values.device.type != "cuda":
            self._pending.append((values, None))
            return
        host = torch.empty_like(values, device="cpu", pin_memory=True)
        host.copy_(values, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self._pending.append((host, arrived))

    def _receive(self) -> StepReport:
        values, arrived = self._pending.popleft()
        if arrived is not None:
            arrived.synchronize()
        *sums, norm, taken = values.tolist()
        return StepReport(tuple(sums), norm, bool(taken))
