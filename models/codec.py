"""What a codec is to everything around it: shared code asks, the codec declares.

A codec is a `VideoCodec`: networks, `code_frame`, and the declarations below. Streams, evaluation, training,
benchmarks and pictures are written against these and nothing else; the list of codecs is models/catalogue.py.

    frame, memory, header --code_frame--> decoded frame, memory, views

Shapes: frames B 3 H W in [0, 1]; H W is the size of the padded frame, sides multiples of the codec's grid.
"""
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from models.entropy.coder import Coder
from models.layers.functional import pad_to_multiple
from models.rates import RATES
from util.errors import InputError

Size = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True)
class FrameHeader:
    """Everything decided about a frame before it is coded; all of it travels in the stream.

    Attributes:
        intra: an I-frame; it resets the memory.
        qp: index of the rate, 0 = lowest quality; an int, or int64 (B,) in training. Below `VideoCodec.rates`.
        size: height and width of the padded frame.
        frame_type: of a P-frame, for codecs that treat positions of a group of frames differently.
        refresh: a P-frame that forgets what the codec wants forgotten now and then (`--reset_interval`).
    """
    intra: bool
    qp: int | Tensor
    size: Size
    frame_type: int = 0
    refresh: bool = False


def encoder_only(default=None):
    """A field of a memory that a decoder has no use for once the first P-frame is decoded."""
    return field(default=default, metadata={"encoder_only": True})


@dataclass(frozen=True)
class Memory:
    """What is remembered from frame to frame. Codecs derive their own; a reset is a new Memory.

    Attributes:
        frame: decoded frame, B 3 H W, in [0, 1]: what motion is estimated from.
    """
    frame: Tensor

    def tensors(self, decoder: bool = False) -> dict[str, Tensor]:
        """Everything remembered, by name; with `decoder`, what a decoder needs for the next P-frame."""
        skipped = {entry.name for entry in fields(self) if decoder and entry.metadata.get("encoder_only")}
        found = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name not in skipped}
        return {name: value for name, value in found.items() if value is not None}

    def buffer_size(self, decoder: bool = False) -> float:
        """Values kept per pixel of the frame ("full-resolution channels")."""
        return sum(x.numel() for x in self.tensors(decoder).values()) / self.frame[:, :1].numel()


class CodedFrame(NamedTuple):
    """The outcome of one frame.

    Attributes:
        frame: decoded frame, B 3 H W; in [0, 1] except in training, where P-frames may stay unclamped.
        memory: what the next frame may use.
        views: what there is to see of how the frame came about, by name, for reports, losses and pictures. What a
            codec lacks is not there; I-frames have none. Names that reports and pictures know:
            flow: estimated flow, B 2 H W, when encoding; decoded_flow: B 2 H W;
            mc: motion-compensated frame, B 3 H W, unclamped; mask: B 1 H W in (0, 1);
            prediction: what is subtracted from the source, B 3 H W;
            residual_offset: the mean of what is added to the decoded flow, B 2 h w in pixels of the frame, h w a
            fraction of H W; offset_mask: the mean of the masks there, B 1 h w in (0, 1);
            attention: a picture of weights between channels, B 1 h w of a size of its own, at least 0.
    """
    frame: Tensor
    memory: Memory
    views: Mapping[str, Tensor] = {}


class Latent(NamedTuple):
    """A latent as it crosses the channel: a section of the stream, a column of reports, a layer of bit maps.

    Attributes:
        name: two letters by custom: i, m or r for intra, motion or rest of the frame; y or z.
        channels: of it.
        stride: pixels of the frame per element, horizontally and vertically.
        distribution: what its symbols are coded with (models/entropy/distributions.py).
        grid: the frame is padded to multiples of it before the latent is made.
        passes: where it is coded in several passes: (height, width) of the latent and a device -> flat positions into
            channels * height * width of each pass, in coding order (models/spatial_prior.py).
    """
    name: str
    channels: int
    stride: int
    distribution: object
    grid: int = 1
    passes: Callable[[Size, torch.device], Sequence[Tensor]] | None = None

    def shape(self, size: Size) -> tuple[int, int, int]:
        """(channels, height, width) in a frame of padded size H W."""
        return self.channels, *(-(-(side + -side % self.grid) // self.stride) for side in size)


class Grid(NamedTuple):
    """What frames are padded to before they are coded, right and bottom.

    Attributes:
        align: sides become multiples of it, or of a multiple of it that the user chooses.
        mode: `replicate` repeats the border, `zeros` does not.
    """
    align: int = 16
    mode: str = "replicate"

    def pad(self, frame: Tensor, align: int | None = None) -> Tensor:
        return pad_to_multiple(frame, align or self.align, self.mode)

    def multiple(self, align: int | None) -> int:
        """What sides become multiples of.

        Raises:
            InputError: what the user chose is no multiple of the grid.
        """
        if align is not None and (align < 1 or align % self.align):
            raise InputError(f"--align_factor {align} must be a multiple of {self.align}, the grid of this codec")
        return align or self.align


class Formats(NamedTuple):
    """Which parts compute in which number format where not all is float32. Everything else is float32, or, in
    portable streams, float64.

    Attributes:
        analysis: parts that only an encoder runs; float32 even in portable streams.
        half: wide parts, which hold nearly all arithmetic, for bfloat16 and float16.
        exact: parts inside those that stay float32: the layers that make frames, flows, latents and probabilities.
        exact_to_half: likewise, but handing on in half precision.
        contiguous: parts that keep PyTorch's default memory layout where the rest is channels-last.
    """
    analysis: Sequence[nn.Module] = ()
    half: Sequence[nn.Module] = ()
    exact: Sequence[nn.Module] = ()
    exact_to_half: Sequence[nn.Module] = ()
    contiguous: Sequence[nn.Module] = ()

    def joined(self, *others: "Formats") -> "Formats":
        """With the parts of others, such as networks that several codecs use."""
        return Formats(*(tuple(chain.from_iterable(parts)) for parts in zip(self, *others)))


Rule = Callable[[str], tuple[str, ...]]
"""Name of an entry of a weight file -> the names under which it is offered to a model; none drops it. Names here are
`root.part`, with the roots of `VideoCodec.plain_roots`."""


class Pretrained(NamedTuple):
    """A weight file of somebody else's that training may start from.

    Attributes:
        file: its name.
        rule: what its entries are for.
        network: the network that must be filled completely by it; None where whatever fits is welcome.
        origin: where to get it.
    """
    file: str
    rule: Rule
    network: str | None
    origin: str


class Training(NamedTuple):
    """What a trainer must know of a codec.

    Attributes:
        initialise: fills a codec with weights to learn from nothing, given the lambdas of QP 0 and 63 where known.
        rules: `--restore` -> what the entries of the result of the step before become.
        pretrained: whether for MS-SSIM -> files for `--restore load_pretrained`.
        widen: name, value and the shape that it has in this codec -> what takes the place of a value of another shape.
        qps: rates that samples are drawn from.
    """
    initialise: Callable[["VideoCodec", tuple[float, float] | None], None]
    rules: Mapping[str, Rule] = {}
    pretrained: Callable[[bool], Sequence[Pretrained]] = lambda ssim: ()
    widen: Callable[[str, Tensor, torch.Size], Tensor] = lambda name, value, shape: value
    qps: Sequence[int] = range(RATES)


class VideoCodec(nn.Module):
    """Networks that code a frame given a memory, and what shared code must know of them.

    Attributes:
        config_type: dataclass of the codec's configuration, its only argument (config/loader.py reads it).
        roots: name of each network (a submodule) -> what stands for it in released names. A network is the unit of
            freezing in training and of tables of complexity. Where weights come in several files, each with flat
            names, the first word stands for the file.
        grid: what frames are padded to.
        frame_types: how many types of P-frames there are.
        intra_network: the network that codes I-frames.
        flow_network: the network that estimates flow, encoder only.
    """
    config_type: ClassVar[type]
    roots: ClassVar[Mapping[str, str]]
    grid: ClassVar[Grid] = Grid()
    frame_types: ClassVar[int] = 1
    intra_network: ClassVar[str] = "intra"
    flow_network: ClassVar[str] = "motion_estimation"

    # What every codec must say

    def code_frame(self, coder: Coder, frame: Tensor | None, memory: Memory | None, header: FrameHeader) -> CodedFrame:
        """Code one frame.

        Args:
            coder: estimates, writes or reads the symbols.
            frame: the source, B 3 H W in [0, 1] of header.size, or None when decoding.
            memory: what the previous frame left; ignored by an I-frame.
            header: what was decided about the frame.
        """
        raise NotImplementedError

    def latents(self, intra: bool) -> tuple[Latent, ...]:
        """Of an I- or a P-frame, in coding order."""
        raise NotImplementedError

    def remember_frame(self, frame: Tensor) -> Memory:
        """The memory that a frame leaves which was not coded: an I-frame's."""
        raise NotImplementedError

    @classmethod
    def for_training(cls) -> Training:
        raise NotImplementedError

    # What has an answer that serves most

    def partial_paths(self) -> Mapping[str, Callable[..., CodedFrame]]:
        """Parts of the way of a P-frame, for stages of training that leave the rest out: `motion`, `contexts`.

        Each codes a frame so far, with the arguments and result of `code_frame`; the source becomes the reference.
        """
        return {}

    @property
    def single_rate(self) -> bool:
        """Whether QPs of P-frames mean nothing."""
        return False

    @property
    def settings(self) -> dict[str, object]:
        """What changes the result and shows in no weight's name or shape, where it is not as released.

        Part of the fingerprint: streams of such a model can be decoded by such a model alone.
        """
        return {}

    @property
    def feature_channels(self) -> int | None:
        """Channels of `ref_feature` in the memory, at full resolution; None where there is none."""
        return None

    def rates(self, intra: bool) -> int:
        """How many rates I- or P-frames have; QPs count from 0."""
        return RATES

    def formats(self) -> Formats:
        return Formats()

    @classmethod
    def released_name(cls, name: str) -> str:
        """The name of an entry of our state dict in weight files: roots replaced."""
        root, rest = name.split(".", 1)
        return f"{cls.roots[root]}.{rest}"

    @classmethod
    def plain_roots(cls) -> dict[str, str]:
        """The roots without the words that only wrap networks: the names of networks in files of phases."""
        return {name: ".".join(word for word in root.split(".") if word not in ("module", "net"))
                for name, root in cls.roots.items()}

    @classmethod
    def is_dropped(cls, released: str) -> bool:
        """Whether an entry of a weight file is of no use to coding, by its released name."""
        return False

    def understood(self, header: FrameHeader) -> FrameHeader:
        """The header without what this codec does not know.

        Raises:
            ValueError: the QP is not one of its rates.
        """
        rates = self.rates(header.intra)
        if isinstance(header.qp, int) and not 0 <= header.qp < rates:
            raise ValueError(f"QP {header.qp} is outside 0..{rates - 1}, the rates of this model's "
                             f"{'I' if header.intra else 'P'}-frames")
        return header if header.frame_type < self.frame_types else replace(header, frame_type=0)

    def distributions(self) -> dict[str, object]:
        """Of all latents, by name."""
        return {latent.name: latent.distribution for intra in (True, False) for latent in self.latents(intra)}

    def networks(self) -> Iterable[tuple[str, nn.Module]]:
        """Each network with its name."""
        return ((name, getattr(self, name)) for name in self.roots)
