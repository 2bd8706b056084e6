"""Moving a variable-rate model to another range of lambda.

A rate index stands for a lambda (log-linear over 0..63), and the gains of its row in the models' tables belong to it.
Where the range changes, the rows move along, so that only the part of the new range that lies outside the old one has
to be learnt.
"""
import math

import torch
from torch import Tensor

from util.errors import InputError
from util.training.network import TrainedNetwork

Range = tuple[float, float]
"""lambda of QP 0 and of QP 63."""


def move_rates(network: TrainedNetwork, before: Range, after: Range) -> None:
    """Give each rate of `after` the gains that the same lambda had in `before`, or would have had beyond its ends.

    Raises:
        InputError: the model has a single rate, a gain is not above 0, or `before` is no range.
    """
    if not 0 < before[0] < before[1]:
        raise InputError(f"--rates_from {before[0]:g} {before[1]:g}: give the lambdas of QP 0 and QP 63, above 0 and "
                         "in ascending order")
    own, training = dict(network.entries()), network.codec.for_training()
    if network.codec.single_rate or not training.rate_tables:
        raise InputError("--rates_from: this model has a single rate, or its rates cannot move; leave the flag out")
    result = {}
    for name in (*training.rate_anchors, *training.rate_tables):
        if name not in own:
            continue
        if not (own[name] > 0).all():
            raise InputError(f"--rates_from: {name} has gains that are not above 0, which have no logarithm")
        table = own[name].detach()
        anchors = name in training.rate_anchors
        result[name] = moved(table[[0, -1]] if anchors else table, before, after, len(table))
    network.load_entries(result)


def moved(table: Tensor, before: Range, after: Range, rows: int | None = None) -> Tensor:
    """The rows of the lambdas of `after`.

    Logarithms are interpolated between the rows, and beyond the ends go on with the mean slope of the table.

    Args:
        table: positive, (R, ...); its rows have lambdas log-linear from the first of `before` to the last.
        rows: of the result, log-linear over `after`; by default R.
    """
    logs, last = table.double().log(), len(table) - 1
    start, end = ((math.log(value / before[0]) / math.log(before[1] / before[0])) * last for value in after)
    positions = torch.linspace(start, end, rows or len(table), dtype=torch.float64).to(table.device)
    inside = positions.clamp(0, last)
    lower = inside.floor().long().clamp(max=last - 1)

    def column(values: Tensor) -> Tensor:
        return values.view(-1, *[1] * (table.ndim - 1))

    result = torch.lerp(logs[lower], logs[lower + 1], column(inside - lower).expand_as(logs[lower]))
    return (result + column(positions - inside) * (logs[-1] - logs[0]) / last).exp().to(table.dtype)
