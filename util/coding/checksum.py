"""A checksum of 8-bit frames that every device computes exactly, in whatever order it adds.

    C = (the bytes of the frame as one number) modulo P,   int.from_bytes(frame, "little") % P

where P = 65519 is prime, so that two bytes hold it. With byte c of row r being x, that is the sum of x 256^(r W + c):
row by row and then over the rows, in integers that never overflow, so that a GPU needs no more than products and sums,
and a few bytes leave it instead of the frame.

One byte that differs by d changes C by d 256^i, which no prime other than 2 divides. A swap of different bytes i and j
changes C by d (256^i - 256^j), which is zero only if 32759, the order of 256 modulo P, divides i - j. Of other changes
one in 65519 passes; a frame that differs is the reference of the next, which then differs too.
"""
import numpy as np
import torch
from torch import Tensor


class PixelChecksum:
    """The checksum of frames of one size.

    Args:
        size: height and width.
        device: of the frames.
    """
    PRIME = 65519

    def __init__(self, size: tuple[int, int], device: torch.device):
        height, width = size
        self._columns = self._powers(256, width, device)
        self._rows = self._powers(pow(256, width, self.PRIME), 3 * height, device)

    @classmethod
    def _powers(cls, base: int, count: int, device: torch.device) -> Tensor:
        powers = [1]
        for _ in range(count - 1):
            powers.append(powers[-1] * base % cls.PRIME)
        return torch.tensor(powers, device=device)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Of uint8 (3, H, W): 0..PRIME - 1, int64, a scalar on the device."""
        rows = pixels.flatten(0, 1)
        if rows.device.type == "cpu":                               # NumPy needs no copy in a wider format
            sums = torch.from_numpy(np.einsum("rc,c->r", rows.numpy(), self._columns.numpy(), dtype=np.int64))
        else:
            sums = (rows * self._columns).sum(1)
        return (sums % self.PRIME * self._rows % self.PRIME).sum() % self.PRIME
