"""Probability tables: proper, faithful, exactly what the coder uses, and the same whatever the maths library."""
import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stream_helpers import tiny_codec

from models.entropy import tables
from models.entropy.likelihood import FactorizedPrior
from models.entropy.tables import (
    NO_SCALE,
    PRECISION,
    SCALES,
    ScaleIndex,
    factorized_tables,
    gaussian_tables,
    scale_ladder,
)
from util.errors import InputError

TOTAL = 1 << PRECISION
GAUSSIAN_CHECKSUM, TINY_CHECKSUM = 989167838, 1658383795


def priors() -> list[FactorizedPrior]:
    model = tiny_codec().network("float32")
    return [model.intra.bit_estimator_z, model.motion.bit_estimator_z_mv, model.inter.bit_estimator_z]


def all_sets() -> list[tables.TableSet]:
    return [gaussian_tables(), *map(factorized_tables, priors())]


def test_frequencies_are_positive_and_fill_the_range():
    for table_set in all_sets():
        for first, count, frequencies in zip(table_set.first, table_set.count, table_set.frequencies):
            assert len(frequencies) == count + 1 and frequencies.min() >= 1 and frequencies.sum() == TOTAL
            assert first <= 0 <= first + count - 1


def test_gaussian_frequencies_are_the_probabilities():
    for scale, frequencies, first in zip(scale_ladder()[0], gaussian_tables().frequencies, gaussian_tables().first):
        edges = torch.arange(first, -first + 2, dtype=torch.float64) - 0.5
        probabilities = torch.special.ndtr(edges / scale).diff().numpy()
        assert np.abs(frequencies[1:] / TOTAL - probabilities).max() < 1.01 * (len(frequencies) + 1) / TOTAL
        assert frequencies[0] <= 2                                  # beyond six standard deviations


def test_factorised_frequencies_are_the_likelihoods():
    for prior in priors():
        table_set = factorized_tables(prior)
        for channel, (first, frequencies) in enumerate(zip(table_set.first, table_set.frequencies)):
            values = torch.arange(first, first + len(frequencies) - 1, dtype=torch.float32).view(1, 1, -1, 1)
            expected = prior.likelihood(values.expand(1, prior.channels, -1, 1))[0, channel, :, 0].numpy()
            assert np.abs(frequencies[1:] / TOTAL - expected).max() < 1e-4
            assert frequencies[0] / TOTAL < 1e-5


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
    assert gaussian_tables().checksum() == GAUSSIAN_CHECKSUM
    assert tiny_codec().tables.checksum() == TINY_CHECKSUM


@pytest.mark.parametrize("error, same", [(1e-14, True), (1e-8, False)])
def test_maths_libraries_cannot_change_tables(monkeypatch, error, same):
    """Errors far above those of float64 libraries change nothing; errors of float32 would."""
    rng = np.random.default_rng(0)
    erfc, cdf = torch.erfc, FactorizedPrior.cdf

    def noisy(x: torch.Tensor) -> torch.Tensor:
        return x * (1 + error * torch.from_numpy(rng.uniform(-1, 1, x.shape)))

    before = [t.checksum() for t in all_sets()]
    monkeypatch.setattr(torch, "erfc", lambda x: noisy(erfc(x)))
    monkeypatch.setattr(FactorizedPrior, "cdf", lambda self, x: noisy(cdf(self, x)))
    after = [tables.gaussian_tables.__wrapped__().checksum(), *(factorized_tables(p).checksum() for p in priors())]
    assert (before == after) == same


@given(st.integers(0, 1 << 24), st.floats(-1e-7, 1e-7), st.floats(-1e-7, 1e-7))
def test_rounding_near_ties_follows_the_true_value(whole, offset, error):
    exact = mpmath.mpf(whole) + mpmath.mpf("0.5") + mpmath.mpf(offset)
    rounded = tables.round_correctly(np.array([whole + 0.5 + offset + error]), lambda _: exact, 3e-7)
    assert rounded[0] == int(mpmath.nint(exact))


def test_the_scale_ladder():
    scales, boundaries = scale_ladder()
    assert scales[0] == 0.11 and scales[-1] == 256 and len(scales) == SCALES
    np.testing.assert_allclose(np.diff(np.log(scales)), np.log(256 / 0.11) / 63)
    np.testing.assert_allclose(boundaries, np.sqrt(scales[1:] * scales[:-1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_scale_index(dtype):
    index = ScaleIndex()
    assert index(torch.from_numpy(scale_ladder()[0]).to(dtype)).tolist() == list(range(SCALES))
    degenerate = torch.tensor([-torch.inf, -1, 0, 1e-5, 300, torch.inf], dtype=dtype)
    assert index(degenerate).tolist() == [0, 0, 0, 0, 63, 63]
    assert index(torch.empty(0, dtype=dtype)).shape == (0,)
    assert index(torch.tensor([[1, torch.nan, -torch.nan]], dtype=dtype)).tolist() == [[18, NO_SCALE, NO_SCALE]]


def searched(scale: torch.Tensor) -> torch.Tensor:
    """The definition: how many boundaries lie below, in float32 at least."""
    wide = scale.to(torch.promote_types(scale.dtype, torch.float32))
    index = torch.bucketize(wide, torch.from_numpy(scale_ladder()[1]).to(wide.dtype))
    return torch.where(wide.isnan(), NO_SCALE, index)


def near(dtype: torch.dtype) -> torch.Tensor:
    """Every boundary and edge of a bin with its neighbours in the format, and what is odd about it."""
    bits = np.arange(ScaleIndex.BINS, dtype=np.uint32) << ScaleIndex.SHIFT
    centres = np.concatenate([scale_ladder()[1], scale_ladder()[0], np.nan_to_num(bits.view(np.float32))])
    centres = torch.from_numpy(centres).to(dtype)
    limits = torch.finfo(dtype)
    odd = torch.tensor([0.0, -0.0, limits.max, limits.min, limits.tiny, limits.smallest_normal / 2, torch.inf,
                        -torch.inf, torch.nan], dtype=dtype)
    up, down = torch.full_like(centres, torch.inf), torch.full_like(centres, -torch.inf)
    return torch.cat([odd, centres, centres.nextafter(up), centres.nextafter(down),
                      centres.to(torch.float32).nextafter(up.float()).to(dtype)])


FORMATS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


@pytest.mark.parametrize("dtype", FORMATS.values(), ids=FORMATS)
def test_scale_index_equals_a_search(dtype):
    if dtype == torch.float16:                                      # PyTorch knows no nextafter of it: all there are
        scale = torch.from_numpy(np.arange(1 << 16, dtype=np.uint16).view(np.float16))
    elif dtype == torch.bfloat16:
        scale = torch.from_numpy(np.arange(1 << 16, dtype=np.uint16).view(np.int16)).view(torch.bfloat16)
    else:
        scale = near(dtype)
    index = ScaleIndex()(scale)
    assert index.dtype == torch.uint8 and torch.equal(index.long(), searched(scale))


@given(st.lists(st.one_of(st.floats(width=32), st.floats(0.0625, 320, width=32)), max_size=50))
def test_scale_index_of_float32(values):
    scale = torch.tensor(values, dtype=torch.float32)
    assert torch.equal(ScaleIndex()(scale).long(), searched(scale))


@given(st.lists(st.one_of(st.floats(), st.floats(0.05, 300)), max_size=50))
def test_scale_index_of_float64(values):
    scale = torch.tensor(values, dtype=torch.float64)
    assert torch.equal(ScaleIndex()(scale).long(), searched(scale))


def test_extreme_priors():
    prior = FactorizedPrior(4)
    with torch.no_grad():
        prior.f1.b[0, 0] = 1e4                                      # all mass far below the table
        prior.f1.b[0, 1] = -1e4                                     # far above
        prior.f1.h[0, 2] = 40.0                                     # a step at zero
        prior.f1.h[0, 3] = -20.0                                    # flat
    table_set = factorized_tables(prior)
    assert (table_set.count >= 1).all() and table_set.count.max() <= 2 * tables.Z_REACH + 1
    assert all(f.min() >= 1 and f.sum() == TOTAL for f in table_set.frequencies)
    with torch.no_grad():
        prior.f2.a[0, 1] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        factorized_tables(prior)
