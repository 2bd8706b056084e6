"""Which positions of a latent each of the four passes codes (DCVC-DC, section 3.3; DCVC-FM).

A position belongs to one of four classes by the parity of its row and column: 0 even/even, 1 even/odd,
2 odd/even, 3 odd/odd. A schedule lists, per pass, the class that each channel group codes in that pass.

    class of a position     inter: all channels      intra: four channel groups
        0 1 0 1             pass 0: class 0          pass 0: 0 1 2 3
        2 3 2 3             pass 1: class 3          pass 1: 3 2 1 0
        0 1 0 1             pass 2: class 2          pass 2: 2 3 0 1
        2 3 2 3             pass 3: class 1          pass 3: 1 0 3 2
"""
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

Schedule = tuple[tuple[int | tuple[int, ...], ...], ...]
"""Per pass and channel group a class, or several."""

INTRA_SCHEDULE: Schedule = ((0, 1, 2, 3), (3, 2, 1, 0), (2, 3, 0, 1), (1, 0, 3, 2))
INTER_SCHEDULE: Schedule = ((0,), (3,), (2,), (1,))
DUAL_SCHEDULE: Schedule = (((0, 3), (1, 2)), ((1, 2), (0, 3)))
"""The dual spatial prior of DCVC-HEM (section 3.2): two halves of the channels on a checkerboard."""


@lru_cache(maxsize=32)
def passes(schedule: Schedule, channels: int, size: tuple[int, int], device: torch.device) -> tuple[Tensor, ...]:
    """Flat positions into (channels, *size) that each pass of the schedule codes, in raster order.

    The result is a pure function of its arguments and kept, so that no frame builds it again.
    """
    classes = 2 * (np.arange(size[0])[:, None] % 2) + np.arange(size[1]) % 2
    groups, result = len(schedule[0]), []
    with torch.inference_mode(False):          # whatever mode asks first, training can use the tensors too
        for step in schedule:
            owned = np.zeros((groups, 4), bool)
            for group, own in enumerate(step):
                owned[group, own if isinstance(own, int) else list(own)] = True
            planes = owned[:, classes].repeat(channels // groups, 0)
            result.append(torch.from_numpy(np.flatnonzero(planes)).to(device))
    return tuple(result)
