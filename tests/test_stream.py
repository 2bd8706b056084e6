"""The coder objects that write and read: exact, compact, and safe with any bytes."""
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_helpers import PLAN, clip, encode_parts, tiny_codec, wild_codec

from models.codec import FrameHeader
from models.entropy import stream
from models.entropy.coder import Estimator, Recorder
from models.entropy.distributions import Added, Factorized, Gaussian, Laplace, Normal, SmoothNormal
from models.entropy.stream import MAX_SYMBOL, StreamDecoder, StreamEncoder, StreamError
from models.entropy.tables import PRECISION, Tables
from util.errors import InputError

PRIOR = tiny_codec().network("float32").inter.bit_estimator_z
SCALED = {"gaussian": Gaussian(), "normal": Normal(), "smooth": SmoothNormal(), "laplace": Laplace()}
MODEL = SCALED["gaussian"]
TABLES = Tables.of({"my": MODEL, "ry": MODEL, "rz": PRIOR, **SCALED})

DIGIT_BITS = {id(stream._SIGN): 1, **{id(m): bits for bits, m in stream._DIGITS.items()}}


def row(values, dtype=torch.float64) -> torch.Tensor:
    return torch.tensor([values], dtype=dtype)


def table_bits(encoder: StreamEncoder, name: str) -> float:
    """-log2 of the frequencies of what was coded; the digits of escapes count as they are."""
    table_set = encoder.tables[name]
    frequencies = {id(model): f for model, f in zip(table_set.models, table_set.frequencies)}
    frequencies[id(stream._LENGTH)] = stream.LENGTH_FREQUENCIES
    bits = 0.0
    for symbols, model in (run for called, runs in encoder.runs if called == name for run in runs):
        if id(model) in frequencies:
            bits += (PRECISION - np.log2(frequencies[id(model)][symbols])).sum()
        else:
            bits += DIGIT_BITS[id(model)] * len(symbols)
    return bits


SCALE = st.one_of(st.floats(-1, 400, width=32), st.sampled_from([0.0, float("inf"), -float("inf"), 0.11, 256.0]))
VALUE = st.one_of(st.floats(-40, 40), st.floats(-MAX_SYMBOL, MAX_SYMBOL), st.just(-0.2))


@given(st.lists(st.lists(st.tuples(VALUE, SCALE), max_size=30), min_size=1, max_size=4), st.sampled_from(list(SCALED)))
def test_what_is_written_is_read(calls, name):
    encoder, model = StreamEncoder(TABLES), SCALED[name]
    written = [encoder.code(row([v for v, _ in call]), row([s for _, s in call]), model, name) for call in calls]
    decoder = StreamDecoder(TABLES, encoder.payload())
    for call, symbols in zip(calls, written):
        assert torch.equal(symbols, row([v for v, _ in call]).round())
        assert torch.equal(decoder.code(None, row([s for _, s in call]), model, name), symbols)
    decoder.finish()
    assert decoder.checksum == encoder.checksum


@pytest.mark.parametrize("name", SCALED)
def test_every_value_is_read_at_every_scale(name):
    """Ends of tables and their neighbours, all lengths of escapes, both signs."""
    table_set, model = TABLES[name], SCALED[name]
    powers = [sign * ((1 << n) + d) for n in range(31) for d in (-1, 0) for sign in (1, -1)]
    scales = torch.logspace(-2.5, 3, 150, dtype=torch.float64).tolist()
    values, at = [], []
    for scale in scales:
        last = -int(table_set.first[int(model.index(row([scale])).item())])
        near = [v for v in range(-last - 3, last + 4) if abs(abs(v) - last) < 4 or abs(v) < 4]
        values += near + powers
        at += [scale] * (len(near) + len(powers))
    encoder = StreamEncoder(TABLES)
    written = encoder.code(row(values), row(at), model, name)
    decoder = StreamDecoder(TABLES, encoder.payload())
    assert torch.equal(written, row(values)) and torch.equal(decoder.code(None, row(at), model, name), written)
    decoder.finish()


@given(st.lists(st.one_of(st.integers(-30, 30), st.integers(-MAX_SYMBOL, MAX_SYMBOL)), min_size=24, max_size=24))
def test_hyper_latents_are_read(values):
    z = torch.tensor(values, dtype=torch.float64).view(1, 4, 2, 3)
    encoder = StreamEncoder(TABLES)
    assert torch.equal(encoder.code_z(z, PRIOR, (2, 3), "rz"), z)
    decoder = StreamDecoder(TABLES, encoder.payload())
    assert torch.equal(decoder.code_z(None, PRIOR, (2, 3), "rz"), z.float())        # the format of the networks
    decoder.finish()


def drawn(name: str, scale: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Latents as the distribution says."""
    if name != "laplace":
        return torch.randn(scale.shape, generator=rng) * scale
    uniform = torch.rand(scale.shape, generator=rng, dtype=torch.float64) - 0.5
    return (-uniform.sign() * torch.log1p(-2 * uniform.abs()) * scale).float()


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("spread", [1, 3])
def test_size_is_the_entropy_of_the_tables(name, spread):
    """Of whatever is coded; and what the estimate says, if the latents are as their distribution says."""
    rng, model = torch.Generator().manual_seed(0), SCALED[name]
    scale = torch.empty(1, 40_000).uniform_(-3.5, 6, generator=rng).exp()
    residual = drawn(name, scale, rng) * spread
    encoder, estimator = StreamEncoder(TABLES), Estimator()
    encoder.code(residual, scale, model, name)
    size, bits = len(encoder.payload()), table_bits(encoder, name)
    assert abs(8 * size - bits) < 32, "a word of the coder"
    if spread == 1:
        estimator.code(residual.double(), scale.double(), model, name)
        assert bits == pytest.approx(estimator.bits[name].item(), rel=0.005)


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("centre", [-4, -2, 0, 2])
def test_size_is_the_estimate_at_low_and_at_high_rates(name, centre):
    """Within 0.5 %, and the 2^-13 of an escape even where nearly all symbols are zeros: -4 is 1/200 bits per symbol."""
    rng, model = torch.Generator().manual_seed(1), SCALED[name]
    scale = (torch.randn(1, 200_000, generator=rng) + centre).exp()
    residual = drawn(name, scale.clamp_min(1e-5), rng)
    encoder, estimator = StreamEncoder(TABLES), Estimator()
    encoder.code(residual, scale, model, name)
    estimator.code(residual.double(), scale.double(), model, name)
    estimate = estimator.bits[name].item()
    assert abs(8 * len(encoder.payload()) - estimate) < 0.005 * estimate + scale.numel() * 2.5 * 2 ** -13


def test_another_distribution_than_that_of_the_tables_is_an_error():
    """Both sides say so before anything is coded with the wrong tables."""
    other, equal = (Factorized(PRIOR.channels) for _ in range(2))
    equal.load_state_dict(PRIOR.state_dict())
    z, ones = torch.zeros(1, PRIOR.channels, 1, 1), torch.ones(1, 1)
    for name, wrong, right in (("ry", Laplace(), Gaussian()), ("ry", Normal(), Gaussian()),
                               ("laplace", MODEL, Laplace()), ("laplace", Laplace(tail=Added(1e-6)), Laplace()),
                               ("rz", other, equal)):
        for coder in (StreamEncoder(TABLES), StreamDecoder(TABLES, b"")):
            if name == "rz":
                coder.code_z(z, right, (1, 1), name)
            else:
                coder.code(ones, ones, right, name)
            with pytest.raises(InputError, match=f"latent {name} .*{type(wrong).__name__} .* not made from"):
                if name == "rz":
                    coder.code_z(z, wrong, (1, 1), name)
                else:
                    coder.code(ones, ones, wrong, name)
    with pytest.raises(InputError, match=r"latent xy has no probability tables \(they were made for my, ry"):
        StreamEncoder(TABLES).code(ones, ones, MODEL, "xy")


def test_symbols_carry_no_negative_zero():
    symbols = StreamEncoder(TABLES).code(row([-0.3, -0.0]), row([1.0, 1.0]), MODEL, "my")
    assert not symbols.signbit().any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -1.5e9, 1.09e9])
def test_what_cannot_be_coded_is_an_error(value, dtype):
    """It is found when the symbols are wanted, so that nobody waits for a device before."""
    encoder = StreamEncoder(TABLES)
    encoder.code(row([0.0, value], dtype), row([1.0, 1.0], dtype), MODEL, "my")
    with pytest.raises(StreamError, match="my: a latent value"):
        encoder.payload()
    encoder = StreamEncoder(TABLES)
    encoder.code_z(torch.tensor([0, value, 0, 0], dtype=dtype).view(1, 4, 1, 1), PRIOR, (1, 1), "rz")
    with pytest.raises(StreamError, match="rz: a latent value"):
        encoder.payload()


def test_a_scale_that_is_no_number_is_an_error():
    encoder = StreamEncoder(TABLES)
    encoder.code(row([0.0]), row([float("nan")]), MODEL, "my")
    with pytest.raises(StreamError, match="my: a scale .* NaN"):
        encoder.payload()
    with pytest.raises(StreamError, match="my: a scale .* NaN"):
        StreamDecoder(TABLES, b"abc").code(None, row([float("nan")]), MODEL, "my")


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 63), st.integers(0, 60))
def test_any_bytes_decode_to_something_bounded(data, step, count):
    decoder = StreamDecoder(TABLES, data)
    scale = torch.full((1, count), 0.11 * 1.13 ** step)
    symbols = decoder.code(None, scale, MODEL, "ry")
    assert symbols.shape == scale.shape and bool((symbols.abs() <= 2 * MAX_SYMBOL + 4000).all())
    assert decoder.code_z(None, PRIOR, (2, 2), "rz").isfinite().all()


def test_symbols_are_taken_as_they_were():
    """The networks may go on with what they got, in place, before anything is written."""
    encoder, scale = StreamEncoder(TABLES), row([1.0, 2.0])
    symbols = encoder.code(row([3.0, -5.0]), scale, MODEL, "ry")
    symbols.add_(1000.0), scale.zero_()
    z = encoder.code_z(torch.ones(1, 4, 1, 1), PRIOR, (1, 1), "rz")
    z.add_(1000.0)
    decoder = StreamDecoder(TABLES, encoder.payload())
    assert decoder.code(None, row([1.0, 2.0]), MODEL, "ry").tolist() == [[3, -5]]
    assert decoder.code_z(None, PRIOR, (1, 1), "rz").flatten().tolist() == [1, 1, 1, 1]


def test_left_over_bytes_are_noticed():
    encoder = StreamEncoder(TABLES)
    scale = torch.full((1, 50), 3.0)
    encoder.code(torch.arange(50.0).view(1, -1) - 25, scale, MODEL, "ry")
    decoder = StreamDecoder(TABLES, encoder.payload())
    decoder.code(None, scale[:, :40], MODEL, "ry")
    with pytest.raises(StreamError, match="holds more than its symbols"):
        decoder.finish()


@torch.inference_mode()
@pytest.mark.parametrize("make", [tiny_codec, wild_codec])
def test_estimated_encoded_and_decoded_latents_are_identical(make):
    codec, frames, memory = make(), clip(4, 32, 48), None
    network = codec.network("float32")
    escapes, indices = 0, set()
    for n, pixels in enumerate(frames):
        header = FrameHeader(n == 0, 42, (32, 48), n % 3)
        source = codec.arithmetic.frame(pixels)
        recorder, encoder = Recorder(), StreamEncoder(codec.tables)
        estimated = network.code_frame(recorder, source, memory, header)
        encoded = network.code_frame(encoder, source, memory, header)
        payload = encoder.payload()
        decoder = StreamDecoder(codec.tables, payload)
        decoded = network.code_frame(decoder, None, memory, header)
        decoder.finish()
        assert encoder.bits == decoder.bits and 0 <= 8 * len(payload) - sum(encoder.bits.values()) <= 8
        for other in (encoded, decoded):
            kept, again = estimated.memory.tensors(), other.memory.tensors()
            assert kept.keys() == again.keys() and all(torch.equal(kept[key], again[key]) for key in kept)
        everything = np.concatenate([s.numpy().ravel() for _, s in recorder.symbols]).astype("<i4")
        assert encoder.checksum == decoder.checksum == zlib.crc32(everything.tobytes())
        for _, runs in encoder.runs:
            escapes += sum(int((symbols == 0).sum()) for symbols, model in runs if id(model) not in DIGIT_BITS)
            indices |= {i for i, m in enumerate(codec.tables["iy"].models) if any(model is m for _, model in runs)}
        memory = encoded.memory
    if make is wild_codec:
        assert escapes > 20 and {0, 63} <= indices and len(indices) > 40


@pytest.mark.parametrize("make", [tiny_codec, wild_codec])
def test_file_size_is_within_half_a_percent_and_20_bytes_per_frame(make, monkeypatch):
    encoders = []

    class Spy(StreamEncoder):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            encoders.append(self)
    monkeypatch.setattr("util.coding.session.StreamEncoder", Spy)
    for count in (1, 5):
        encoders.clear()
        parts = encode_parts(make(), clip(count, 64, 96), PLAN)
        entropy = sum(table_bits(e, name) for e in encoders for name in e.bits) / 8
        size = sum(len(part.data) for part in parts)
        assert abs(size - entropy) < 0.005 * entropy + 20 * count + 60
