"""Networks of short reach, applied to bands of rows, so that what lies between their layers stays small.

A pointwise network with four times as many hidden channels as inputs would fill gigabytes at 1080p, and on CPUs
spend its time on memory rather than arithmetic. In bands it works in the cache; results are the same, because every
output row depends on the same input rows. Shapes: B C H W.
"""
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from models.layers.functional import memory_layout

BAND_BYTES = {"cpu": 6 << 20, "cuda": 128 << 20}
"""Size of the widest tensor of a band: on CPUs it should stay in the cache, on GPUs keep all cores busy."""


def band_height(x: Tensor, widest: int) -> int:
    """Rows of x per band, such that `widest` channels of them take no more than BAND_BYTES.

    Where gradients are recorded, what lies between the layers is kept anyway: all rows.
    """
    if torch.is_grad_enabled():
        return x.shape[2]
    limit = BAND_BYTES.get(x.device.type, BAND_BYTES["cuda"])
    return max(1, limit // (x.shape[0] * widest * x.shape[3] * x.element_size()))


def bands(x: Tensor, widest: int) -> Iterator[tuple[int, int]]:
    """First row of each band of x, and the row after its last. Arguments as in `band_height`."""
    height, rows = x.shape[2], band_height(x, widest)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def in_bands(network: Callable[[int, int], Tensor], x: Tensor, outputs: int, widest: int) -> Tensor:
    """Call `network(top, bottom)`, which returns rows top..bottom - 1 of the result, for all rows of x.

    Args:
        x: the input; the result has its batch, height, width, number format and memory layout.
        outputs: channels of the result.
        widest: channels of the largest tensor that the network makes.
    """
    height, rows = x.shape[2], band_height(x, widest)
    if rows >= height:
        return network(0, height)
    result = torch.empty(x.shape[0], outputs, height, x.shape[3], dtype=x.dtype, device=x.device,
                         memory_format=memory_layout(x))
    for top, bottom in bands(x, widest):
        result[:, :, top:bottom] = network(top, bottom)
    return result

