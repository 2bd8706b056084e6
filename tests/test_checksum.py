"""The checksum of 8-bit frames: what it is, what it notices, and that order and device do not matter."""
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from util.coding.checksum import PixelChecksum

SIZES = [(1, 1), (1, 2), (2, 1), (3, 5), (16, 24), (33, 47)]
PRIME = 65519


def of(pixels: torch.Tensor) -> int:
    return int(PixelChecksum(tuple(pixels.shape[1:]), pixels.device)(pixels))


def random(size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [*SIZES, (2, 5000), (700, 3)])
@pytest.mark.parametrize("fill", [None, 0, 255])
def test_it_is_the_remainder_of_one_large_number(size, fill):
    """A change is a new version of the stream format."""
    pixels = random(size) if fill is None else torch.full((3, *size), fill, dtype=torch.uint8)
    assert of(pixels) == int.from_bytes(pixels.numpy().tobytes(), "little") % PRIME


def test_the_prime_is_one_and_256_repeats_late():
    assert PRIME == PixelChecksum.PRIME and all(PRIME % d for d in range(2, 256))
    order = 17 * 41 * 47
    assert order == 32759 and pow(256, order, PRIME) == 1
    assert all(pow(256, order // factor, PRIME) != 1 for factor in (17, 41, 47))


BYTES = 3 * 5 * 7


@given(st.integers(0, BYTES - 1), st.integers(1, 255), st.integers(0, 5))
def test_any_single_change_is_noticed(place, difference, seed):
    pixels = random((5, 7), seed)
    changed = pixels.clone()
    changed.flatten()[place] += difference                          # wraps around: any other value
    assert of(changed) != of(pixels)


@given(st.integers(0, BYTES - 1), st.integers(0, BYTES - 1), st.integers(0, 5))
def test_any_swap_is_noticed(one, other, seed):
    pixels = random((5, 7), seed)
    changed = pixels.clone()
    changed.flatten()[[one, other]] = pixels.flatten()[[other, one]]
    assert (of(changed) != of(pixels)) == (not torch.equal(changed, pixels))


@pytest.mark.parametrize("pattern", [(1, -1), (1, -2, 1), (1, -1, -1, 1), (1, 0, -2, 0, 1), (1, -3, 3, -1)])
def test_changes_that_cancel_in_simpler_sums_are_noticed(pattern):
    pixels = torch.full((3, 16, 16), 100, dtype=torch.uint8)
    for step in (1, 4, 16, 64):
        changed = pixels.clone()
        for n, difference in enumerate(pattern):
            changed.flatten()[200 + n * step] += difference
        assert of(changed) != of(pixels)


def test_channels_rows_and_columns_are_told_apart():
    pixels = random((12, 16))
    versions = (pixels, pixels.flip(0), pixels.flip(1), pixels.flip(2), pixels.roll(4, 2), pixels.roll(1, 1))
    assert len({of(p.contiguous()) for p in versions}) == len(versions)


def test_views_count_like_their_copies():
    pixels = random((8, 12))
    view = pixels.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert not view.is_contiguous() and of(view) == of(pixels)


def test_a_device_without_numpy_agrees():
    """What a GPU does, on whatever is here."""
    class Elsewhere(torch.Tensor):
        device = torch.device("meta")
    pixels = random((33, 47))
    assert int(PixelChecksum((33, 47), torch.device("cpu"))(pixels.as_subclass(Elsewhere))) == of(pixels)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("size", [*SIZES, (1080, 1920)])
def test_cuda_agrees(size):
    pixels = random(size)
    assert of(pixels.cuda()) == of(pixels)
