"""The leaky bucket between an encoder that makes frames of many sizes and a channel of constant rate."""
from dataclasses import dataclass


@dataclass
class LeakyBucket:
    """What waits to be sent. Each frame falls in at once; the channel takes `drain` bytes per frame's time.

    A decoder that starts when it could have received `size` bytes has `size - waiting` bytes in hand when a frame is
    due. Where more than `size` bytes wait, that frame is late: the decoder's buffer underflows.

    Args:
        size: bytes, of the decoder's buffer; at least `drain`.
        drain: bytes per frame, above 0.

    Attributes:
        waiting: bytes, after the last frame and before the channel took its share of it.
        peak: most bytes that waited.
        underflows: how many frames were late.
    """
    size: float
    drain: float
    waiting: float = 0.0
    peak: float = 0.0
    underflows: int = 0

    def __post_init__(self):
        assert 0 < self.drain <= self.size

    def __call__(self, frame: float) -> float:
        """Put a frame of so many bytes in; the fullness with it, 1 being all that the decoder can wait for."""
        self.waiting = max(0.0, self.waiting - self.drain) + frame
        self.peak = max(self.peak, self.waiting)
        self.underflows += self.waiting > self.size
        return self.waiting / self.size

    @property
    def room(self) -> float:
        """Bytes that the next frame may take; not below 0."""
        return max(0.0, self.size - max(0.0, self.waiting - self.drain))
