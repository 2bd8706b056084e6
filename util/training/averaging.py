"""Exponential moving average of the weights (`--ema`): smoother than the weights of any single step.

While an average is kept, it is what users of a checkpoint get: validation, `best`, export, evaluation and the next
step of a recipe. Only resuming goes on from the weights of the last step, which the file keeps beside it.
"""
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from util.training.network import TrainedNetwork


class WeightAverage:
    """The average of a network's parameters over the steps so far.

    Args:
        decay: weight of the past in each step, in (0, 1); less at first, (1 + n) / (10 + n) after n steps, so that the
            initial weights do not linger.

    Attributes:
        steps: that have been averaged.
    """

    def __init__(self, network: TrainedNetwork, decay: float):
        self.decay, self.steps = decay, 0
        self._names = [name for name, _ in network.named_parameters()]
        self._weights = list(network.parameters())
        self._averages = [weight.detach().clone() for weight in self._weights]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self._averages, [weight.detach() for weight in self._weights], 1 - decay)
        self.steps += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block the network has the averages for weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state(self) -> dict:
        """What a checkpoint keeps beside the averages: the number of steps, and the weights of the last one."""
        return {"steps": self.steps, "weights": {name: weight.detach().cpu()
                                                 for name, weight in zip(self._names, self._weights)}}

    def restore(self, state: dict) -> None:
        """Go on from a checkpoint, whose averages are the network's weights now; its own weights come back."""
        self.steps = state["steps"]
        with torch.no_grad():
            for name, weight, average in zip(self._names, self._weights, self._averages):
                average.copy_(weight)
                weight.copy_(state["weights"][name])

    def _swap(self) -> None:
        for weight, n in zip(self._weights, range(len(self._averages))):
            weight.data, self._averages[n] = self._averages[n], weight.data


def put_back(network: TrainedNetwork, state: dict) -> None:
    """The weights of the last step of a checkpoint with an average, for a run that goes on without one."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.copy_(state["weights"][name])
