"""Optimizer steps that are decided on the device."""
import math

import pytest
import torch
from torch import nn
from torch.optim import Adam

from util.training.steps import GRADIENT_BOUND, HUGE_LOSS, OptimizerSteps

GRADIENTS = ([1.0, -2.0, 0.5], [100.0, -0.1, -100.0], [math.nan, 1.0, 1.0], [0.3, 0.2, 0.1], [1.0, 1.0, 1.0],
             [math.inf, 1.0, 1.0], [-1.0, 0.5, 1.0])
LOSSES = (1.0, 2.0, 3.0, HUGE_LOSS * 1.01, math.nan, 1.0, 1.0)
TAKEN = [True, True, False, False, False, False, True]


def run(lag: int, clip_norm: float | None = None):
    parameter, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    steps, reports = OptimizerSteps([parameter, unused], 0.1, lag, clip_norm), []
    seen = []
    for number, (gradient, loss) in enumerate(zip(GRADIENTS, LOSSES)):
        parameter.grad = torch.tensor(gradient)
        steps.take(torch.tensor(loss), torch.tensor([float(number), 2.0]))
        assert parameter.grad is None
        reports += steps.reports()
        seen.append(len(reports))
    reports += steps.drain()
    return parameter.detach(), steps, reports, seen


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_bad_steps_change_nothing(clip_norm):
    """Neither NaN nor infinity comes through the clipping, and Adam forgets nothing."""
    parameter, steps, reports, _ = run(0, clip_norm)
    expected = nn.Parameter(torch.ones(3))
    adam = Adam([expected], 0.1)
    for gradient, taken in zip(GRADIENTS, TAKEN):
        if taken:
            expected.grad = torch.tensor(gradient)
            if clip_norm is None:
                nn.utils.clip_grad_value_([expected], GRADIENT_BOUND)
            else:
                nn.utils.clip_grad_norm_([expected], clip_norm)
            adam.step()
    torch.testing.assert_close(parameter, expected.detach())
    state, = [state for state in steps.optimizer.state.values() if state]
    assert state["step"].item() == sum(TAKEN) and state["exp_avg"].isfinite().all()
    assert [report.taken for report in reports] == TAKEN
    assert [report.sums for report in reports] == [(float(n), 2.0) for n in range(7)]
    norms = [report.norm for report in reports]
    assert norms == pytest.approx([torch.tensor(gradient).norm().item() for gradient in GRADIENTS], nan_ok=True)


def test_a_host_that_lags_behind_sees_the_same():
    at_once, late = run(0), run(1)
    assert torch.equal(at_once[0], late[0]) and str(at_once[2]) == str(late[2])
    assert at_once[3] == [1, 2, 3, 4, 5, 6, 7] and late[3] == [0, 1, 2, 3, 4, 5, 6]


def test_clipping_by_norm():
    parameter = nn.Parameter(torch.zeros(2))
    steps = OptimizerSteps([parameter], 0.1, 0, clip_norm=1.0)
    parameter.grad = torch.tensor([30.0, -40.0])
    steps.take(torch.tensor(1.0), torch.zeros(1))
    state, = steps.optimizer.state.values()
    assert state["exp_avg"].tolist() == pytest.approx([0.06, -0.08], rel=1e-4)      # a tenth of the clipped gradient


def test_a_factor_of_the_learning_rate():
    """Adam's first step is as long as the learning rate, whatever the gradient; the rate of a group is a multiple."""
    slow, usual = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    steps = OptimizerSteps([{"params": [slow], "factor": 0.1}, {"params": [usual]}], 1.0, 0)
    steps.set_rate(0.5)
    for parameter in (slow, usual):
        parameter.grad = torch.tensor([2.0, -0.3])
    steps.take(torch.tensor(1.0), torch.zeros(1))
    torch.testing.assert_close(slow.detach(), torch.tensor([-0.05, 0.05]))
    torch.testing.assert_close(usual.detach(), torch.tensor([-0.5, 0.5]))
    assert steps.lr == 0.5
