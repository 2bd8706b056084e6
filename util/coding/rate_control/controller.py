"""Who decides the header of each frame. A `CodingPlan` is the controller that learns nothing."""
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from models.codec import FrameHeader, VideoCodec
from util.coding.gop import CodingPlan
from util.errors import InputError

Trial = Callable[[CodingPlan], Sequence[int]]
"""Codes the first frames with a plan: bytes of each."""


class Controller:
    """Decides about each frame of a sequence, in order. As it stands here, it learns nothing.

    Attributes:
        plan: frame types and resets, and the QPs that the stream names as its own.
        lookahead: how many frames to try things on before the first is coded; 0 for none, and then every frame goes out
            as soon as it is coded.
    """
    plan: CodingPlan
    lookahead: int = 0

    def start(self, trial: Trial) -> None:
        """Is called once before the first frame, where there is a `lookahead`."""

    def together(self, number: int) -> int:
        """How many frames from `number` on go out together, at least one; where there is a `lookahead`."""
        return 1

    def header(self, number: int, size: tuple[int, int]) -> FrameHeader:
        """What is decided about frame `number`, of aligned size H W. Frames are asked for once each, in order."""
        raise NotImplementedError

    def spent(self, number: int, size: int) -> None:
        """Frame `number` took `size` bytes. Comes in order, and, on a GPU, some frames after its header."""

    def again(self) -> bool:
        """Is asked when frames that go out `together` are coded: whether to code them again, as is decided then."""
        return False


@dataclass
class Constant(Controller):
    """The controller of constant quality: the plan as it is."""
    plan: CodingPlan

    def header(self, number: int, size: tuple[int, int]) -> FrameHeader:
        return self.plan.header(number, size)


@dataclass(frozen=True)
class Rates:
    """The QPs that may be chosen, by one number, the base: that of P-frames, to which those of I-frames are tied.

    Attributes:
        plan: its QPs fix the distance between I- and P-frames.
        intra, inter: how many rates I- and P-frames have.
    """
    plan: CodingPlan
    intra: int
    inter: int

    @classmethod
    def of(cls, codec: VideoCodec, plan: CodingPlan) -> "Rates":
        """Those of a codec, by its own declaration.

        Raises:
            InputError: it has a single rate.
        """
        intra, inter = codec.rates(intra=True), codec.rates(intra=False)
        if codec.single_rate or inter < 2 or intra < 2:
            raise InputError("this model has a single rate, so no target can be met; give a model of several rates")
        return cls(plan, intra, inter)

    @property
    def highest(self) -> int:
        """Of the bases, which count from 0."""
        return self.inter - 1

    def qp(self, base: int, intra: bool) -> int:
        """Of an I- or P-frame, inside what the codec has."""
        if intra:
            return min(max(base + self.plan.intra_qp - self.plan.qp, 0), self.intra - 1)
        return min(max(base, 0), self.inter - 1)

    def at(self, base: int) -> CodingPlan:
        """The plan of constant quality at a base."""
        return replace(self.plan, qp=self.qp(base, intra=False), intra_qp=self.qp(base, intra=True))

    def header(self, number: int, size: tuple[int, int], base: int) -> FrameHeader:
        """The plan's header, at a base."""
        header = self.plan.header(number, size)
        return replace(header, qp=self.qp(base, header.intra))

    def group_of(self, number: int) -> tuple[int, int]:
        """The mini-GOP that a frame is in: (GOP, rate group in it)."""
        gop, position = divmod(number, self.plan.gop)
        return gop, position // self.plan.rate_gop_size

    def left_in_group(self, number: int) -> int:
        """How many frames there are from this one to the end of its mini-GOP."""
        position = number % self.plan.gop
        return min(self.plan.rate_gop_size - position % self.plan.rate_gop_size, self.plan.gop - position)
