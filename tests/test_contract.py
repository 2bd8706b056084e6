"""What every codec of the catalogue owes to streams, evaluation and training, at the tiny widths of tests/tiny.

A codec comes in with a line in models/catalogue.py and a file tests/tiny/{codec}.yml; nothing here names one. Variants
that ship owe the same (`-m slow`).
"""
import io
import math
from collections import Counter
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch

from helpers import ROOT, TINY, tiny_codec_model, variants
from models.catalogue import CODECS, MODELS, codec_class, find_model
from models.codec import CodedFrame, FrameHeader, VideoCodec
from models.entropy.coder import Estimator, Recorder, Replayer
from models.entropy.stream import StreamEncoder, StreamError
from models.entropy.tables import PRECISION
from seeded import seeded_video
from util.arithmetic import choose_arithmetic
from util.checkpoint import fingerprint, load_model, save_model
from util.coding.codec import Codec
from util.coding.gop import CodingPlan
from util.coding.session import EncodedPart
from util.evaluation.complexity import buffer_size, count_macs
from util.training.clip_loss import ClipLoss
from util.training.losses import Loss, LossExpression
from util.training.network import TrainedNetwork
from util.training.stages import StagePlan

SIZE = (64, 128)
PLAN = CodingPlan(qp=40, intra_qp=40, gop=6, reset_interval=3)


@pytest.fixture(params=[*sorted(CODECS), *(pytest.param(name, marks=pytest.mark.slow) for name in variants())])
def name(request) -> str:
    return request.param


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def model_of(name: str) -> VideoCodec:
    return tiny_codec_model(name)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def codec_of(name: str) -> Codec:
    return Codec(tiny_codec_model(name), choose_arithmetic("cpu", threads=1))


@pytest.fixture
def model(name) -> VideoCodec:
    return model_of(name)


@pytest.fixture
def codec(name) -> Codec:
    return codec_of(name)


def source(frames: int, size=SIZE) -> torch.Tensor:
    """T 1 3 H W."""
    return seeded_video(frames, *size, 1)[:, None]


def pixels(frames: int, size=SIZE) -> list[torch.Tensor]:
    return list((seeded_video(frames, *size, 1) * 255).round().byte())


@torch.no_grad()
def code(model: VideoCodec, clip, coders) -> list[CodedFrame]:
    """Code a clip; `clip` of None decodes."""
    memory, coded = None, []
    for n, coder in enumerate(coders):
        header = model.understood(PLAN.header(n, SIZE))
        coded.append(model.code_frame(coder, None if clip is None else clip[n], memory, header))
        memory = coded[-1].memory
    return coded


def parts_of(codec: Codec, frames: int = 4, **options) -> list[EncodedPart]:
    return list(codec.encode(pixels(frames), PLAN, **options))


def stream_of(parts: list[EncodedPart]) -> bytes:
    return b"".join(part.data for part in parts)


def test_every_model_of_the_catalogue_has_a_file_and_a_codec():
    for model in map(find_model, MODELS):
        assert model.codec in CODECS and codec_class(model).roots
        assert set(model.size) == {"parameters", "encode", "decode", "buffer"} and model.paper and model.verified
    assert {path.stem for path in TINY.glob("*.yml")} >= set(CODECS), "each codec has a tiny model"


def test_replay_equals_recording(model):
    recorders = [Recorder() for _ in range(8)]
    recorded = code(model, source(8), recorders)
    replayers = [Replayer(recorder.symbols) for recorder in recorders]
    for a, b, replayer in zip(recorded, code(model, None, replayers), replayers, strict=True):
        replayer.finish()
        assert torch.equal(a.frame, b.frame) and a.memory.tensors().keys() == b.memory.tensors().keys()
        assert all(torch.equal(value, b.memory.tensors()[key]) for key, value in a.memory.tensors().items())
        assert "flow" not in b.views and a.views.keys() - {"flow"} == b.views.keys()


def test_what_is_coded_is_what_is_declared(model):
    """Latents in coding order, with their shapes; all symbols matter."""
    recorders = [Recorder(), Recorder()]
    code(model, source(2), recorders)
    for recorder, intra in zip(recorders, (True, False)):
        latents = model.latents(intra)
        order = list(dict.fromkeys(name for name, _ in recorder.symbols))
        assert order == [latent.name for latent in latents]
        for latent in latents:
            symbols = [x for name, x in recorder.symbols if name == latent.name]
            assert sum(x.numel() for x in symbols) == math.prod(latent.shape(SIZE))
            if latent.passes is not None:
                where = torch.cat(list(latent.passes(latent.shape(SIZE)[1:], torch.device("cpu"))))
                assert torch.equal(where.sort().values, torch.arange(where.numel()))
        assert all(recorder.bits[latent.name] > 0 for latent in latents)
    assert len({*model.distributions()}) == len(model.latents(True)) + len(model.latents(False))


def test_the_memory_of_an_i_frame_is_what_a_frame_leaves(model):
    coded = code(model, source(8), [Estimator() for _ in range(8)])
    for n in (0, 6):
        own, made = coded[n].memory.tensors(), model.remember_frame(coded[n].frame).tensors()
        assert own.keys() == made.keys() and all(torch.equal(own[key], made[key]) for key in own)


def test_memory_never_grows(model):
    sizes = [coded.memory.buffer_size() for coded in code(model, source(6), [Estimator() for _ in range(6)])]
    assert len({*sizes[1:]}) == 1 and sizes[0] <= sizes[1]


def test_a_decoder_needs_what_the_buffer_counts_and_nothing_else(model):
    recorders = [Recorder() for _ in range(5)]
    recorded, memory = code(model, source(5), recorders), None
    with torch.no_grad():
        for n, recorder in enumerate(recorders):
            if n >= 2:                                             # the first P-frame may use the I-frame
                lost = memory.tensors().keys() - memory.tensors(decoder=True).keys()
                memory = replace(memory, **{entry: torch.full_like(getattr(memory, entry), math.nan)
                                            for entry in lost})
            header = model.understood(replace(PLAN.header(n, SIZE), refresh=False))
            coded = model.code_frame(Replayer(recorder.symbols), None, memory, header)
            assert n == PLAN.reset_interval + 1 or torch.equal(coded.frame, recorded[n].frame)
            memory = coded.memory
    buffer = buffer_size(model)
    assert buffer.decoder == pytest.approx(sum(buffer.parts.values())) and buffer.decoder <= buffer.encoder


def test_streams_decode_and_are_as_large_as_their_estimate(model, codec):
    parts = parts_of(codec)
    decoded = list(codec.decode(io.BytesIO(stream_of(parts))))
    estimators = [Estimator() for _ in range(4)]
    code(model, source(4), estimators)
    prices = [Prices(codec.tables) for _ in range(4)]
    code(model, source(4), prices)
    for part, frame, estimator, price in zip(parts[1:-1], decoded, estimators, prices, strict=True):
        assert frame.matches and torch.equal(part.frame, frame.frame)
        assert sum(part.bits.values()) % 8 == 0 and part.bits == frame.bits
        for latent in model.latents(part.header.intra):
            size, bits = part.bits[latent.name], estimator.bits[latent.name].item()
            # Rounding to bytes, the length, and the state that the coder ends with; an unlikely symbol may cost less
            # than its estimate, which has a floor, and far out more: what its table and the digits of its escape say.
            assert 0.5 * bits <= size <= 1.02 * max(bits, price.bits_of[latent.name]) + 64, (latent, size, bits)


class Prices(StreamEncoder):
    """Writes, and compares what each symbol's distribution says it costs with what its table does.

    Attributes:
        likely: bits of the symbols that are in their tables and have a probability of 2^-LIMIT at least, by
            (distribution, table): [2] float; `count` of them.
        rest: the same of the others; the digits of an escape are left out of the second.
        bits_of: by latent, what its tables and the digits of its escapes cost: a sign, how many digits there are (each
            number of them a factor of sqrt(2) rarer than the one before), and the digits.
    """
    LIMIT = 12

    def __init__(self, tables):
        super().__init__(tables)
        self.likely, self.rest, self.count, self.bits_of = np.zeros(2), np.zeros(2), 0, Counter()

    def code(self, residual, scale, distribution, name):
        symbols = super().code(residual, scale, distribution, name)
        self._compare(symbols, distribution.bits(symbols.double(), scale.double()), distribution.index(scale), name)
        return symbols

    def code_z(self, z, prior, size, name):
        symbols = super().code_z(z, prior, size, name)
        channels = torch.arange(prior.channels)[None, :, None, None].expand_as(symbols)
        self._compare(symbols, prior.bits(symbols), channels, name)
        return symbols

    def _compare(self, symbols, bits, index, name):
        tables, values, index = self.tables[name], symbols.flatten().long().numpy(), index.flatten().long().numpy()
        place = values - tables.first[index] + 1
        escaped = (place < 1) | (place > tables.count[index])
        paid = np.array([PRECISION - math.log2(tables.frequencies[table][0 if outside else entry])
                         for table, entry, outside in zip(index, place, escaped)])
        excess = np.where(place < 1, -place, place - tables.count[index] - 1)[escaped]
        digits = np.floor(np.log2(excess + 1))
        self.bits_of[name] += paid.sum() + (1 - math.log2(1 - 0.5 ** 0.5) + 1.5 * digits).sum()
        said = bits.flatten().double().numpy()
        likely = (said <= self.LIMIT) & ~escaped
        assert not escaped[said <= 8].any(), "a tail holds 2^-9 at most"
        self.count += likely.sum()
        self.likely += said[likely].sum(), paid[likely].sum()
        self.rest += said[~likely].sum(), paid[~likely].sum()


def test_symbols_cost_what_their_distributions_say(model, codec):
    """Within 1 %, and the 2^-13 of an escape. That is the whole payload where distributions fit; with seeded weights
    many symbols are improbable, and these may cost less than an estimate whose tail has a floor."""
    memory = None
    for n, frame in enumerate(source(3)):
        prices, estimator = Prices(codec.tables), Estimator()
        with torch.no_grad():
            header = model.understood(PLAN.header(n, SIZE))
            model.code_frame(estimator, frame, memory, header)
            memory = model.code_frame(prices, frame, memory, header).memory
        said, paid = prices.likely
        assert paid == pytest.approx(said, rel=0.01, abs=prices.count * 2 ** -13) and said > 100
        assert said + prices.rest[0] == pytest.approx(sum(bits.item() for bits in estimator.bits.values()), rel=0.001)


def test_odd_sizes_are_padded_and_cropped(codec):
    frames = pixels(2, (33, 47))
    decoded = list(codec.decompress(io.BytesIO(b"".join(codec.compress(frames, PLAN)))))
    assert [tuple(frame.shape) for frame in decoded] == [(3, 33, 47)] * 2


@pytest.mark.parametrize("portable, precision", [(True, "float32"), (False, "bfloat16")])
def test_other_number_formats(name, codec, portable, precision):
    if precision != "float32":
        codec = Codec(tiny_codec_model(name), choose_arithmetic("cpu", threads=1, precision=precision))
    parts = parts_of(codec, 3, portable=portable)
    for part, frame in zip(parts[1:-1], codec.decode(io.BytesIO(stream_of(parts))), strict=True):
        assert frame.matches and torch.equal(part.frame, frame.frame)
        assert part.frame.dtype == (torch.float64 if portable else torch.float32)
        for key, value in part.coded.memory.tensors().items():
            assert value.dtype in (torch.float64,) if portable else value.dtype in (torch.float32, torch.bfloat16), key


def test_damage_is_told_and_the_next_i_frame_decodes(codec):
    parts = parts_of(codec, 8)
    start = sum(len(part.data) for part in parts[:3])
    stream = bytearray(stream_of(parts))
    stream[start + len(parts[3].data) // 2] ^= 0x20
    with pytest.raises(StreamError, match="frame 3"):
        list(codec.decode(io.BytesIO(bytes(stream))))
    kept = list(codec.decode(io.BytesIO(bytes(stream)), keep_going=True, report=lambda message: None))
    assert [frame.number for frame in kept] == [0, 1, 6, 7]


def test_rates_beyond_those_declared_are_refused(model):
    for intra in (True, False):
        rates = model.rates(intra)
        model.understood(FrameHeader(intra, rates - 1, SIZE))
        with pytest.raises(ValueError, match=f"QP {rates} is outside 0..{rates - 1}"):
            model.understood(FrameHeader(intra, rates, SIZE))


def test_quality_is_finite_at_all_ends_of_the_rates(model):
    with torch.no_grad():
        for qp in (0, model.rates(False) - 1):
            memory = None
            for n, frame in enumerate(source(2)):
                header = model.understood(FrameHeader(n == 0, qp, SIZE))
                coded = model.code_frame(Estimator(), frame, memory, header)
                memory = coded.memory
                assert coded.frame.isfinite().all() and coded.frame.min() >= 0 and coded.frame.max() <= 1


def test_complexity_adds_up(model):
    encode, decode = count_macs(model), count_macs(model, decode=True)
    assert encode.total == pytest.approx(sum(encode.parts.values()), rel=1e-6)
    assert decode.parts[model.flow_network] == 0 and decode.parts[model.intra_network] == 0
    assert 0 < decode.total < encode.total


def test_weights_have_names_of_their_own_and_come_back(name, model, tmp_path):
    released = [model.released_name(entry) for entry in model.state_dict()]
    assert len(set(released)) == len(released)
    save_model(model, tmp_path / "weights.pth.tar")
    again = type(model)(model.config)
    load_model(again, tmp_path / "weights.pth.tar")
    assert fingerprint(again) == fingerprint(model)


def test_a_training_step_reaches_everything(name, model):
    """Loss and gradients are finite, and no network but the intra codec is left without."""
    codec = tiny_codec_model(name).train().requires_grad_(True)
    network = TrainedNetwork(codec)
    plan = StagePlan(stage="fullgop", p_frames=3, detach_frame=False, detach_flow=False, frame_types=(0, 1, 0, 2),
                     terms=frozenset({"rate", "distortion"}))
    loss = ClipLoss(network, plan, Loss(LossExpression("rate"), LossExpression("distortion")), anchor=0,
                    quality_level=5)
    frames = (seeded_video(4, *SIZE, 3)[None] * 255).round().byte()
    value, terms = loss(frames, torch.tensor([30]), torch.tensor([1]))
    value.mean().backward()
    assert value.isfinite().all() and all(term.isfinite().all() for term in terms.values())
    for entry, parameter in network.trainable_candidates():
        if parameter.grad is not None:
            assert parameter.grad.isfinite().all(), entry
    for root, part in codec.networks():
        reached = [p for p in part.parameters() if p.grad is not None and p.grad.any()]
        assert bool(reached) == (root != codec.intra_network), root


def test_from_nothing_the_first_steps_are_finite(name):
    torch.manual_seed(0)
    codec = type(model_of(name))(model_of(name).config)
    codec.for_training().initialise(codec, None)
    for coded in code(codec.eval(), source(3), [Estimator() for _ in range(3)]):
        assert coded.frame.isfinite().all()


def test_nothing_outside_names_a_codec():
    """Shared code asks; only a codec's folder, the catalogue and tests know its modules."""
    folders = [module.split(":")[0].split(".")[1] for module in CODECS.values()]
    for top in ("util", "benchmarks", "dataloader", "config"):
        for path in (ROOT / top).rglob("*.py"):
            text = path.read_text()
            for folder in folders:
                assert f"models.{folder}" not in text, path
