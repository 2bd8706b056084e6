"""What is decided about each frame of a sequence before any is coded."""
from dataclasses import dataclass, replace

from models.codec import FrameHeader
from models.rates import RATES
from util.choices import FRAME_TYPES
from util.errors import InputError

ANCHOR_LEVELS = range(2, 6)
"""`--iframe_quality` of single-rate models: the quality levels of the four intra anchors."""


@dataclass(frozen=True, kw_only=True)
class CodingPlan:
    """Frame types, rates and resets of a sequence.

    Attributes:
        qp: rate index of P-frames, 0..63.
        intra_qp: rate index of I-frames, 0..63 (0..3 for the anchors of single-rate models).
        gop: frames from one I-frame to the next.
        index_map: frame type at each position of the rate group.
        rate_gop_size: length of the rate group.
        reset_interval: what the codec wants refreshed is forgotten where frame_in_gop % reset_interval == 1.
        scene_cuts: 0-based frames that are intra besides; the frame types keep counting from the GOP's first frame.

    Raises:
        InputError: a value outside its bounds.
    """
    qp: int
    intra_qp: int | None = None
    gop: int = 32
    index_map: tuple[int, ...] = (0, 1, 0, 2, 0, 2, 0, 2)
    rate_gop_size: int = 8
    reset_interval: int = 32
    scene_cuts: frozenset[int] = frozenset()

    def __post_init__(self):
        if self.intra_qp is None:
            object.__setattr__(self, "intra_qp", self.qp)
        for name, value in (("--QP", self.qp), ("--iframe_quality", self.intra_qp)):
            if not 0 <= value < RATES:
                raise InputError(f"{name} {value} is outside 0..{RATES - 1}")
        for name in ("gop", "rate_gop_size", "reset_interval"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} {getattr(self, name)} must be at least 1")
        for entry in self.index_map:
            if not 0 <= entry < FRAME_TYPES:
                raise InputError(f"--index_map entry {entry} is outside 0..{FRAME_TYPES - 1}")
        if len(self.index_map) < self.rate_gop_size:
            raise InputError(f"--index_map has {len(self.index_map)} entries, fewer than --rate_gop_size "
                             f"{self.rate_gop_size}; give one entry per frame of the rate group")

    def for_intra_rates(self, rates: int) -> "CodingPlan":
        """The same for a codec whose I-frames have so many rates: `intra_qp` has been a quality level so far."""
        return replace(self, intra_qp=intra_rate_index(self.intra_qp, rates))

    def starts_gop(self, n: int) -> bool:
        return n % self.gop == 0

    def header(self, n: int, size: tuple[int, int]) -> FrameHeader:
        """What is decided about frame n (from 0), of aligned size H W."""
        position = n % self.gop
        if position == 0 or n in self.scene_cuts:
            return FrameHeader(intra=True, qp=self.intra_qp, size=size)
        return FrameHeader(intra=False, qp=self.qp, size=size,
                           frame_type=self.index_map[position % self.rate_gop_size],
                           refresh=position % self.reset_interval == 1)


def intra_rate_index(quality: int, rates: int = RATES) -> int:
    """The intra rate index behind `--iframe_quality`: itself, or the anchor of a single-rate model's level 2..5.

    Args:
        rates: how many rates the codec's I-frames have.
    """
    if rates != len(ANCHOR_LEVELS):
        return quality
    if quality not in ANCHOR_LEVELS:
        raise InputError(f"--iframe_quality {quality} is outside {ANCHOR_LEVELS[0]}..{ANCHOR_LEVELS[-1]}, "
                         "the quality levels of a single-rate model")
    return quality - ANCHOR_LEVELS[0]
