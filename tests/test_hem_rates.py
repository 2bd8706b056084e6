"""From QPs to steps of quantisation."""
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.hem.rates import ANCHOR_QPS, steps_of

ANCHORS = torch.tensor((1.9175168, 1.3014764, 0.8200017, 0.51809394)).view(4, 1, 1, 1)

anchors_of_any_model = st.lists(st.floats(2 ** -6, 2 ** 6, width=32), min_size=4, max_size=4)


def steps(anchors: list[float], points: int | None = None) -> list[float]:
    return steps_of(torch.tensor(anchors).view(4, 1, 1, 1), points).flatten().tolist()


def test_anchors_stand_at_their_qps():
    result = steps_of(ANCHORS)
    assert result.shape == (64, 1, 1, 1) and result.dtype == torch.float32
    assert ANCHOR_QPS == (0, 21, 42, 63)
    assert torch.equal(result[list(ANCHOR_QPS)], ANCHORS)


@given(anchors_of_any_model, st.integers(0, 62))
def test_pieces_are_log_linear(anchors, qp):
    result, piece = steps(anchors), qp // 21
    ratio = anchors[piece + 1] / anchors[piece]
    assert result[qp + 1] / result[qp] == pytest.approx(ratio ** (1 / 21), rel=1e-6)


@given(anchors_of_any_model, st.integers(2, 12))
def test_released_points_depend_on_the_outer_anchors_alone(anchors, points):
    result = steps(anchors, points)
    if points == 4:
        assert result == anchors
    else:
        first, last = anchors[0], anchors[-1]
        np.testing.assert_allclose(result, [first * (last / first) ** (n / (points - 1)) for n in range(points)],
                                   rtol=1e-5)


def test_gradients_reach_the_anchors_of_a_piece():
    anchors = ANCHORS.clone().requires_grad_()
    steps_of(anchors)[torch.tensor((21, 60))].sum().backward()
    gradient = anchors.grad.flatten().tolist()
    weight = 18 / 21                                   # QP 60 lies 18 steps after the anchor at 42
    step = ANCHORS[2].item() ** (1 - weight) * ANCHORS[3].item() ** weight
    expected = [0, 1, (1 - weight) * step / ANCHORS[2].item(), weight * step / ANCHORS[3].item()]
    assert gradient == pytest.approx(expected, rel=1e-5)
