"""Targets: the leaky bucket and the search, on simulated encoders; and controllers on a codec."""
import io
import itertools
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_helpers import clip, coded, decode, encode, tiny_codec

from helpers import tiny_codec_model
from models.codec import RATES
from util.coding.bitstream import pack_end
from util.coding.gop import CodingPlan
from util.coding.rate_control.buffer import LeakyBucket
from util.coding.rate_control.controller import Constant, Controller, Rates
from util.coding.rate_control.one_pass import OnePass
from util.coding.rate_control.search import Goal, Ladder, Search
from util.errors import InputError

PLAN = CodingPlan(qp=32, intra_qp=34, gop=24)


# The leaky bucket

@settings(deadline=None)
@given(st.lists(st.integers(0, 4000), min_size=1, max_size=40))
def test_bucket_is_the_decoders_buffer_seen_from_the_other_side(sizes):
    bucket = LeakyBucket(size=3000, drain=500)
    in_hand, late = 3000, 0                                        # the decoder begins with a full buffer
    for size in sizes:
        fullness = bucket(size)
        in_hand -= size
        late += in_hand < 0
        assert fullness == pytest.approx((3000 - in_hand) / 3000)
        assert bucket.room == min(3000, max(0, in_hand + 500))
        in_hand = min(3000, in_hand + 500)
    assert bucket.underflows == late


# The search

def simulated(seed: int, frames: int, wild: bool = False):
    """Bytes of a sequence by base QPs; `wild` has no order at all."""
    chance = random.Random(seed)
    costs = [chance.uniform(200, 900) * (8 if n % 16 == 0 else 1) for n in range(frames)]
    slope = chance.uniform(0.03, 0.12)

    def measure(qps):
        if wild:
            return random.Random(hash((seed, qps))).uniform(1e3, 1e5)
        return sum(int(cost * math.exp(slope * (qp - 20))) for cost, qp in zip(costs, qps, strict=True))
    return measure


def ladder_of(frames: int) -> Ladder:
    return Ladder([(n // 16, n % 16 // 8) for n in range(frames)], RATES - 1)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), frames=st.integers(24, 96), share=st.floats(0.02, 0.98), guess=st.integers(0, 63))
def test_search_ends_within_half_a_percent_and_never_above(seed, frames, share, guess):
    measure, ladder = simulated(seed, frames), ladder_of(frames)
    least, most = (measure(ladder.qps(level)) for level in (0, ladder.top))
    target = least * (most / least) ** share
    found = Search(measure, Goal.size(target)).run(ladder, guess)
    assert found.met and 0.995 * target <= measure(found.bases) <= target
    assert found.measured <= 24


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), target=st.floats(2e3, 9e4))
def test_search_is_never_above_whatever_the_encoder_does(seed, target):
    measure, ladder = simulated(seed, 32, wild=True), ladder_of(32)
    found = Search(measure, Goal.size(target)).run(ladder, 32)
    if found.bases is not None:
        assert measure(found.bases) <= target


@settings(max_examples=20, deadline=None)
@given(frames=st.integers(24, 96), target=st.floats(20.1, 44))
def test_search_for_quality_is_never_below(frames, target):
    def measure(qps):
        return 20 + 0.4 * sum(qps) / len(qps)
    found = Search(measure, Goal.quality(target)).run(ladder_of(frames), 32)
    assert found.met and target <= measure(found.bases) <= target + 0.02


def test_search_beyond_the_ends():
    measure, ladder = simulated(1, 32), ladder_of(32)
    least, most = (measure(ladder.qps(level)) for level in (0, ladder.top))
    assert Search(measure, Goal.size(0.99 * least)).run(ladder, 32).bases is None
    found = Search(measure, Goal.size(2 * most)).run(ladder, 32)
    assert found.bases == (RATES - 1,) * 32 and not found.met


def test_each_level_raises_one_more_frame_and_mini_gops_are_spread():
    ladder = ladder_of(64)
    for level in range(128):
        below, above = ladder.qps(level), ladder.qps(level + 1)
        assert sum(above) == sum(below) + 1 and all(a >= b for a, b in zip(above, below, strict=True))
    assert ladder.order[:24] == [*range(8), *range(32, 40), *range(16, 24)]


# On a codec

def test_a_constant_controller_is_the_plan():
    frames = clip(3, 64, 64)
    assert encode(tiny_codec(), frames, Constant(PLAN)) == encode(tiny_codec(), frames, PLAN)


@pytest.mark.parametrize("behind", [0, 1])
def test_a_controlled_stream_decodes_and_tells_its_qps(behind, monkeypatch):
    codec = tiny_codec()
    monkeypatch.setattr(codec, "behind", behind)
    plan = CodingPlan(qp=40, intra_qp=42, gop=2, rate_gop_size=1)
    least, most = (8 * 25 * len(encode(codec, clip(2, 64, 64), replace(plan, qp=qp, intra_qp=qp))) / 2
                   for qp in (0, RATES - 1))
    law = OnePass(Rates.of(codec.network("float32"), plan), (least + most) / 2, 25)
    parts, stream = coded(codec, clip(6, 64, 64), law)
    decoded = decode(codec, stream)
    assert [frame.header for frame in decoded] == [part.header for part in parts]
    assert law.frames == 6 and law.bytes == sum(frame.size for frame in decoded)
    assert law.plan.intra_qp - law.plan.qp in (0, 1, 2) and len({frame.header.qp for frame in decoded}) > 2
    assert all(frame.matches for frame in decoded)
    cut = stream[:-len(pack_end(6)) - decoded[5].size]
    kept = codec.decode(io.BytesIO(cut), keep_going=True, report=lambda line: None)
    assert [frame.number for frame in kept] == list(range(5))


class Reconsidering(Controller):
    """Codes frames, two by two, at QP 60 and again at that of the plan."""
    lookahead = 1

    def __init__(self, plan: CodingPlan):
        self.plan, self.first, self.told = plan, True, []

    def together(self, number):
        return 2

    def header(self, number, size):
        header = self.plan.header(number, size)
        return replace(header, qp=60) if self.first else header

    def spent(self, number, size):
        self.told.append(number)

    def again(self):
        self.first = not self.first
        return not self.first


@pytest.mark.parametrize("behind", [0, 1])
def test_what_is_coded_again_follows_what_went_out(behind, monkeypatch):
    """The stream is that of the second attempts alone, and each frame is in it once."""
    codec, frames, plan = tiny_codec(), clip(5, 64, 64), CodingPlan(qp=20, intra_qp=22, gop=24)
    monkeypatch.setattr(codec, "behind", behind)
    law = Reconsidering(plan)
    assert encode(codec, frames, law) == encode(codec, frames, plan)
    assert law.told == [0, 1, 0, 1, 2, 3, 2, 3, 4, 4]
    assert all(part.coded is None for part in codec.encode(iter(frames), Reconsidering(plan))), "eight would take GBs"


def test_input_without_an_end_is_coded_as_it_comes():
    """No frame is waited for but those of the trial, and nothing of frames that went out is kept."""
    codec, read = tiny_codec(), []

    def endless():
        for frame in itertools.cycle(clip(2, 64, 64)):
            read.append(frame)
            yield frame
    plan = CodingPlan(qp=32, gop=2, rate_gop_size=1)
    law = OnePass(Rates.of(codec.network("float32"), plan), 66e3, 25)
    for sent, part in enumerate(itertools.islice(codec.encode(endless(), law), 1, 7), start=1):
        assert part.number == sent - 1 and len(read) <= max(sent, law.lookahead) == max(sent, 2)
        assert len(law._done) <= 1 and not law._asked


def test_a_model_of_a_single_rate_has_no_targets():
    model = tiny_codec_model("hytip")
    assert Rates.of(model, PLAN).highest == RATES - 1
    model.rates = lambda intra: 1
    with pytest.raises(InputError, match="single rate"):
        Rates.of(model, PLAN)
