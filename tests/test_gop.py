"""What is decided about frames before they are coded."""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from util.coding.gop import CodingPlan, intra_rate_index
from util.errors import InputError


def test_frame_types_follow_the_index_map_and_restart_with_the_gop():
    plan = CodingPlan(qp=10, intra_qp=20, gop=12)
    headers = [plan.header(n, (16, 32)) for n in range(14)]
    assert [h.intra for h in headers] == [n in (0, 12) for n in range(14)]
    assert [h.frame_type for h in headers if not h.intra] == [1, 0, 2, 0, 2, 0, 2, 0, 1, 0, 2, 1]
    assert {h.qp for h in headers if h.intra} == {20} and {h.qp for h in headers if not h.intra} == {10}


def test_types_keep_counting_through_a_scene_cut():
    plan = CodingPlan(qp=10, intra_qp=20, scene_cuts=frozenset({3}))
    headers = [plan.header(n, (16, 16)) for n in range(6)]
    assert [h.intra for h in headers] == [True, False, False, True, False, False]
    assert [headers[n].frame_type for n in (1, 2, 4, 5)] == [1, 0, 0, 2]


@given(gop=st.integers(1, 70), interval=st.integers(1, 70), n=st.integers(0, 300))
def test_resets_follow_the_position_in_the_gop(gop, interval, n):
    header = CodingPlan(qp=0, intra_qp=0, gop=gop, reset_interval=interval).header(n, (16, 16))
    assert header.intra == (n % gop == 0)
    if not header.intra:
        assert header.refresh == ((n % gop) % interval == 1)


@pytest.mark.parametrize("wrong, named", [
    ({"qp": 64}, "--QP 64 is outside 0..63"), ({"intra_qp": -1}, "--iframe_quality -1"), ({"gop": 0}, "--gop 0"),
    ({"index_map": (0, 3) * 4}, "--index_map entry 3"), ({"index_map": (0, 1)}, "--index_map has 2 entries"),
    ({"reset_interval": 0}, "--reset_interval 0")])
def test_values_outside_their_bounds_are_refused(wrong, named):
    with pytest.raises(InputError, match=named):
        CodingPlan(**{"qp": 1, "intra_qp": 1, **wrong})


def test_intra_rate_of_single_rate_models():
    assert [intra_rate_index(q, 4) for q in (2, 3, 4, 5)] == [0, 1, 2, 3]
    assert intra_rate_index(63, 64) == 63
    with pytest.raises(InputError, match="outside 2..5"):
        intra_rate_index(63, 4)
