"""Probability tables: proper, faithful, exactly what the coder uses, and the same whatever the maths library."""
import mpmath
import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from stream_helpers import tiny_codec

from models.entropy import distributions, tables
from models.entropy.distributions import LAPLACE_LADDER, NORMAL_LADDER, Factorized, Gaussian, Laplace, Normal
from models.entropy.tables import LEAST_ESCAPE, MOST_ESCAPE, NO_SCALE, PRECISION, Ladder, Tables
from util.errors import InputError

TOTAL = 1 << PRECISION
NORMAL_CHECKSUM, LAPLACE_CHECKSUM, TINY_CHECKSUM = 3911444611, 3213441551, 881017919
LADDERS = {"normal": Ladder(*NORMAL_LADDER), "laplace": Ladder(*LAPLACE_LADDER)}
CUMULATIVES = {"normal": scipy.stats.norm.cdf, "laplace": scipy.stats.laplace.cdf}
SCALED = {"normal": Normal(), "laplace": Laplace()}


def priors() -> list[Factorized]:
    model = tiny_codec().network("float32")
    return [model.intra.bit_estimator_z, model.motion.bit_estimator_z_mv, model.inter.bit_estimator_z]


def all_sets() -> list[tables.TableSet]:
    return [Gaussian().tables(), Laplace().tables(), *(prior.tables() for prior in priors())]


def build_again() -> list[int]:
    """Checksums of tables that no cache knows."""
    made = [distributions._tables.__wrapped__(kind.ladder, kind.cumulative)
            for kind in (distributions.Normal, distributions.Laplace)]
    return [table_set.checksum() for table_set in (*made, *(prior.tables() for prior in priors()))]


def test_frequencies_are_positive_and_fill_the_range():
    for table_set in all_sets():
        for first, count, frequencies in zip(table_set.first, table_set.count, table_set.frequencies):
            assert len(frequencies) == count + 1 and frequencies.min() >= 1 and frequencies.sum() == TOTAL
            assert first <= 0 <= first + count - 1


@pytest.mark.parametrize("name", SCALED)
def test_frequencies_are_the_probabilities_up_to_what_escapes(name):
    """The tails that are cut off are no more than the escape has, and that is little."""
    table_set = SCALED[name].tables()
    for scale, frequencies, first in zip(LADDERS[name].scales, table_set.frequencies, table_set.first):
        probabilities = np.diff(CUMULATIVES[name](np.arange(first, -first + 2) - 0.5, scale=scale))
        beyond = 1 - probabilities.sum()
        own = np.clip((1 - probabilities.max()) / 256, 2 ** -13, 2 ** -8)
        assert beyond <= 1.01 * own and frequencies[0] / TOTAL == pytest.approx(own + (1 - own) * beyond, rel=1e-3)
        assert np.abs(frequencies[1:] / TOTAL - (1 - own) * probabilities).max() < 1.1 * (len(frequencies) + 1) / TOTAL
        assert np.abs(frequencies[1:] - frequencies[:0:-1]).max() <= 2, "rounding alone breaks the symmetry"
        assert (np.diff(frequencies[1:][-first:]) <= 1).all(), "tails fall"


@pytest.mark.parametrize("name", SCALED)
def test_tables_cost_what_the_distribution_says(name):
    """The mean over all values of a table: within 0.5 % at its own scale, 2 % at the next boundary of the ladder."""
    model, ladder = SCALED[name], LADDERS[name]
    for scales, most in ((ladder.scales, 0.005), (ladder.boundaries, 0.02)):
        for scale in scales.tolist():
            table = int(model.index(torch.tensor([scale])).item())
            frequencies, first = model.tables().frequencies[table], model.tables().first[table]
            values = torch.arange(first, 1 - first, dtype=torch.float64)
            bits = model.bits(values, torch.full_like(values, scale)).numpy()
            probabilities = np.diff(CUMULATIVES[name](np.arange(first, 2 - first) - 0.5, scale=scale))
            excess = ((PRECISION - np.log2(frequencies[1:]) - bits) * probabilities).sum()
            assert excess < most * (bits * probabilities).sum() + 2.5 * 2 ** -13, scale


def test_factorised_frequencies_are_the_probabilities():
    for prior in priors():
        table_set = prior.tables()
        for channel, (first, frequencies) in enumerate(zip(table_set.first, table_set.frequencies)):
            values = torch.arange(first, first + len(frequencies) - 1, dtype=torch.float32).view(1, 1, -1, 1)
            expected = prior.probability(values.expand(1, prior.channels, -1, 1))[0, channel, :, 0].numpy()
            assert np.abs(frequencies[1:] / TOTAL - expected).max() < 2 ** -8 * expected.max() + 1e-4
            assert LEAST_ESCAPE <= frequencies[0] <= 2.01 * MOST_ESCAPE


def test_distributions_of_equal_scales_share_tables():
    assert Gaussian().tables() is Gaussian().tables() is Normal().tables()
    assert Laplace().tables() is Laplace(1e-3).tables()
    shared = Tables.of({"a": Gaussian(), "b": Gaussian(), "c": Laplace()})
    assert shared["a"] is shared["b"] is not shared["c"]
    checksums = {Tables.of(given).checksum() for given in (
        {"a": Gaussian()}, {"b": Gaussian()}, {"a": Laplace()}, {"a": Gaussian(), "b": Gaussian()})}
    assert len(checksums) == 4 and Tables.of({"b": Laplace(), "a": Normal()}).checksum() == \
        Tables.of({"a": Normal(), "b": Laplace()}).checksum()


def test_the_coder_uses_exactly_these_frequencies():
    """The state of an ANS coder after its first symbol is the symbol's cumulative frequency."""
    coder_class = tables.constriction.stream.stack.AnsCoder
    for table_set in all_sets():
        for frequencies, model in zip(table_set.frequencies[::7], table_set.models[::7]):
            starts = []
            for symbol in range(len(frequencies)):
                coder = coder_class()
                coder.encode_reverse(np.array([symbol], np.int32), model)
                state = coder.get_compressed()
                starts.append(int(state[0]) if len(state) else 0)
            assert np.array_equal(np.diff([*starts, TOTAL]), frequencies)


def test_tables_are_pinned():
    """The same numbers on every machine; a change is a new version of the stream format."""
    assert (Gaussian().tables().checksum(), Laplace().tables().checksum()) == (NORMAL_CHECKSUM, LAPLACE_CHECKSUM)
    assert tiny_codec().tables.checksum() == TINY_CHECKSUM


@pytest.mark.parametrize("error, same", [(1e-14, True), (1e-8, False)])
def test_maths_libraries_cannot_change_tables(monkeypatch, error, same):
    """Errors far above those of float64 libraries change nothing; errors of float32 would."""
    rng = np.random.default_rng(0)
    erfc, exp, cdf = torch.erfc, torch.exp, Factorized.cdf

    def noisy(x: torch.Tensor) -> torch.Tensor:
        return x * (1 + error * torch.from_numpy(rng.uniform(-1, 1, x.shape)))

    before = build_again()
    monkeypatch.setattr(torch, "erfc", lambda x: noisy(erfc(x)))
    monkeypatch.setattr(torch, "exp", lambda x: noisy(exp(x)))
    monkeypatch.setattr(Factorized, "cdf", lambda self, x: noisy(cdf(self, x)))
    assert [a == b for a, b in zip(before, build_again())] == [same] * len(before)


@given(st.integers(0, 1 << 24), st.floats(-1e-7, 1e-7), st.floats(-1e-7, 1e-7))
def test_rounding_near_ties_follows_the_true_value(whole, offset, error):
    exact = mpmath.mpf(whole) + mpmath.mpf("0.5") + mpmath.mpf(offset)
    rounded = tables.round_correctly(np.array([whole + 0.5 + offset + error]), lambda _: exact, 3e-7)
    assert rounded[0] == int(mpmath.nint(exact))


@pytest.mark.parametrize("name, least", [("normal", 0.11), ("laplace", 0.05)])
def test_the_ladders(name, least):
    scales, boundaries = LADDERS[name].scales, LADDERS[name].boundaries
    assert scales[0] == least and scales[-1] == 256 and len(scales) == 64
    np.testing.assert_allclose(np.diff(np.log(scales)), np.log(256 / least) / 63)
    np.testing.assert_allclose(boundaries, np.sqrt(scales[1:] * scales[:-1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_index(dtype):
    index = Gaussian().index
    assert index(torch.from_numpy(LADDERS["normal"].scales).to(dtype)).tolist() == list(range(64))
    degenerate = torch.tensor([-torch.inf, -1, 0, 1e-5, 300, torch.inf], dtype=dtype)
    assert index(degenerate).tolist() == [0, 0, 0, 0, 63, 63]
    assert index(torch.empty(0, dtype=dtype)).shape == (0,)
    assert index(torch.tensor([[1, torch.nan, -torch.nan]], dtype=dtype)).tolist() == [[18, NO_SCALE, NO_SCALE]]
    assert Laplace().index(torch.tensor([0.03, 1], dtype=dtype)).tolist() == [0, 22]


def searched(ladder: Ladder, scale: torch.Tensor) -> torch.Tensor:
    """The definition: how many boundaries lie below, in float32 at least."""
    wide = scale.to(torch.promote_types(scale.dtype, torch.float32))
    index = torch.bucketize(wide, torch.from_numpy(ladder.boundaries).to(wide.dtype))
    return torch.where(wide.isnan(), NO_SCALE, index)


def near(ladder: Ladder, dtype: torch.dtype) -> torch.Tensor:
    """Every boundary and edge of a bin with its neighbours in the format, and what is odd about it."""
    bits = np.arange(Ladder.BINS, dtype=np.uint32) << Ladder.SHIFT
    centres = np.concatenate([ladder.boundaries, ladder.scales, np.nan_to_num(bits.view(np.float32))])
    centres = torch.from_numpy(centres).to(dtype)
    limits = torch.finfo(dtype)
    odd = torch.tensor([0.0, -0.0, limits.max, limits.min, limits.tiny, limits.smallest_normal / 2, torch.inf,
                        -torch.inf, torch.nan], dtype=dtype)
    up, down = torch.full_like(centres, torch.inf), torch.full_like(centres, -torch.inf)
    return torch.cat([odd, centres, centres.nextafter(up), centres.nextafter(down),
                      centres.to(torch.float32).nextafter(up.float()).to(dtype)])


FORMATS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


@pytest.mark.parametrize("ladder", LADDERS.values(), ids=LADDERS)
@pytest.mark.parametrize("dtype", FORMATS.values(), ids=FORMATS)
def test_index_equals_a_search(dtype, ladder):
    if dtype == torch.float16:                                      # PyTorch knows no nextafter of it: all there are
        scale = torch.from_numpy(np.arange(1 << 16, dtype=np.uint16).view(np.float16))
    elif dtype == torch.bfloat16:
        scale = torch.from_numpy(np.arange(1 << 16, dtype=np.uint16).view(np.int16)).view(torch.bfloat16)
    else:
        scale = near(ladder, dtype)
    index = ladder.index(scale)
    assert index.dtype == torch.uint8 and torch.equal(index.long(), searched(ladder, scale))


LADDER = st.sampled_from(list(LADDERS.values()))


@given(LADDER, st.lists(st.one_of(st.floats(width=32), st.floats(0.03125, 320, width=32)), max_size=50))
def test_index_of_float32(ladder, values):
    scale = torch.tensor(values, dtype=torch.float32)
    assert torch.equal(ladder.index(scale).long(), searched(ladder, scale))


@given(LADDER, st.lists(st.one_of(st.floats(), st.floats(0.03, 300)), max_size=50))
def test_index_of_float64(ladder, values):
    scale = torch.tensor(values, dtype=torch.float64)
    assert torch.equal(ladder.index(scale).long(), searched(ladder, scale))


def test_extreme_priors():
    prior = Factorized(4)
    with torch.no_grad():
        prior.f1.b[0, 0] = 1e4                                      # all mass far below the table
        prior.f1.b[0, 1] = -1e4                                     # far above
        prior.f1.h[0, 2] = 40.0                                     # a step at zero
        prior.f1.h[0, 3] = -20.0                                    # flat
    table_set = prior.tables()
    assert (table_set.count >= 1).all() and table_set.count.max() <= 2 * distributions.Z_REACH + 1
    assert all(f.min() >= 1 and f.sum() == TOTAL for f in table_set.frequencies)
    with torch.no_grad():
        prior.f2.a[0, 1] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        prior.tables()
