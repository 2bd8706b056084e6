"""Which parts of the networks compute in which number format, for portable streams and for half precision.

Portable: decoders on other machines must come to the same symbols. In float32 a difference in the last bit soon turns
a scale index, and every later symbol is wrong; in float64 such a turn needs a scale within about 1e-13 of a boundary.

Half precision: bfloat16 has 8 significant bits, not enough for a pixel, a displacement of many pixels, or a large
latent. So the wide networks, which hold nearly all arithmetic, compute in it, while everything that crosses from one
network to another as a frame, a flow, a latent or a probability stays in float32, with the layer that makes it.
"""
import copy
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from models.codec import VideoCodec
from models.layers.float64 import use_fast_float64
from models.layers.formats import autocast_in, compute_in, store_channels_last
from models.layers.narrow import use_packed_rows

HALF = (torch.bfloat16, torch.float16)


def portable_copy(model: VideoCodec) -> VideoCodec:
    """A copy that codes in float64, but analyses the source in float32: only the encoder runs that part."""
    model = copy.deepcopy(model).to(torch.float64, memory_format=torch.contiguous_format)
    use_fast_float64(model)
    compute_in(torch.float32, model.formats().analysis, outside=torch.float64)
    return model


def half_copy(model: VideoCodec, dtype: torch.dtype) -> VideoCodec:
    """A copy with wide networks in bfloat16 or float16; frames, flows and latents in and out are float32."""
    model = copy.deepcopy(model)
    store_channels_last(model)
    use_packed_rows(model)
    formats = model.formats()
    compute_in(dtype, formats.half)
    compute_in(torch.float32, formats.exact)
    compute_in(torch.float32, formats.exact_to_half, outside=dtype)
    return model


@contextmanager
def half_inside(model: VideoCodec, dtype: torch.dtype, intra: bool = False) -> Iterator[None]:
    """Training in half precision: inside the block the parts that `half_copy` would convert compute in `dtype`.

    Weights stay float32; autocast makes a copy of each, once in the block.

    Args:
        intra: let the intra codec do so, and no other network; I-frames that nobody learns from stay in float32.
    """
    kind, formats = next(model.parameters()).device.type, model.formats()
    of_intra = set(getattr(model, model.intra_network).modules())

    def chosen(parts: Iterable[nn.Module]) -> list[nn.Module]:
        return [part for part in parts if (part in of_intra) == intra]

    with torch.autocast(kind, enabled=False), ExitStack() as hooks:
        for part in chosen(formats.half):
            hooks.enter_context(autocast_in(part, kind, dtype))
        for part in chosen((*formats.exact, *formats.exact_to_half)):
            hooks.enter_context(autocast_in(part, kind, None))
        yield


def fast_layout(model: VideoCodec) -> VideoCodec:
    """The model itself, in channels_last, which convolutions are fastest in, but for what must keep its layout."""
    store_channels_last(model)
    use_packed_rows(model)
    for part in model.formats().contiguous:
        part.to(memory_format=torch.contiguous_format)
    return model


def is_supported(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether convolutions in this number format run on the device at all."""
    network = nn.Conv2d(1, 1, 3).to(device, dtype)
    try:
        network(torch.zeros(1, 1, 3, 3, device=device, dtype=dtype))
    except RuntimeError:
        return False
    return True
