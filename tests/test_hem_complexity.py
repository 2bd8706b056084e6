"""What DCVC-HEM costs, against the figures that the paper of DCVC-MIP and the released networks give."""
import pytest
import torch

from models.codec import FrameHeader
from models.hem.codec import DCVCHEM
from models.hem.config import HemConfig
from models.hem.memory import HemMemory
from seeded_hem import TINY_HEM, seeded_hem
from util.evaluation import complexity

PIXELS = 1920 * 1024


class Shapes:
    """A coder of tensors that have shapes and no values."""

    def code(self, residual, scale, distribution, name):
        return torch.empty_like(scale)

    def code_z(self, z, prior, size, name):
        return torch.empty(1, prior.channels, *size, device="meta")


@pytest.fixture(scope="module")
def codec():
    with torch.device("meta"):
        return DCVCHEM(HemConfig()).eval().requires_grad_(False)


def memory(height: int, width: int, complete: bool) -> HemMemory:
    shapes = {"frame": (3, height, width)}
    if complete:
        coarse = height // 16, width // 16
        shapes |= {"ref_feature": (64, height, width), "ref_y": (96, *coarse), "ref_mv_y": (64, *coarse)}
    return HemMemory(**{name: torch.empty(1, *shape, device="meta") for name, shape in shapes.items()})


@pytest.mark.parametrize("intra, complete, decode, giga, convolutions", [
    (False, True, False, 3268.97, 1658.685), (False, True, True, 2439.94, 1237.776),
    pytest.param(False, False, False, 3264.32, 1656.3165, marks=pytest.mark.slow),
    (True, False, False, 1875.69, 952.312),
    (True, False, True, 1163.93, 590.863)])
def test_multiply_adds(codec, intra, complete, decode, giga, convolutions):
    height, width = complexity.SIZE
    frame = None if decode else torch.empty(1, 3, height, width, device="meta")
    header = FrameHeader(intra, 0, (height, width))

    def run() -> None:
        codec.code_frame(Shapes(), frame, memory(height, width, complete), header)
    aten = complexity.aten
    mapping = {aten.convolution: complexity._convolution,
               **dict.fromkeys(complexity.ACTIVATIONS, complexity._activation)}
    def counted(mapping: dict, *operations: object) -> float:
        return sum(complexity._count(run, codec, mapping)[0].get(operation, 0) for operation in operations)
    assert counted(mapping, *mapping) * PIXELS / 1e6 == pytest.approx(giga, abs=0.005)
    assert counted({}, aten.convolution) == pytest.approx(convolutions, abs=0.0005)


def test_buffer():
    whole = memory(1024, 1920, complete=True)
    assert (whole.buffer_size(), whole.buffer_size(decoder=True)) == (67.625, 64.625)
    buffer = complexity.buffer_size(seeded_hem())
    latents = (TINY_HEM.channel_M + TINY_HEM.channel_mv) / 256
    assert (buffer.encoder, buffer.decoder) == (3 + TINY_HEM.channel_N + latents, TINY_HEM.channel_N + latents)
