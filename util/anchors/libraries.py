"""x264 and x265, through PyAV: 4:2:0 8 bits, zerolatency, fixed QP, an I-frame every 32 frames.

Each in two settings. `x265` is the command line that the DCVC papers use, `x264` the same with the preset veryfast.
Both write an SEI message with their own settings (0.6 and 2.3 kB), and x265 tunes for looks (psy-rd, psy-rdoq), which
costs PSNR; `x264-fair` and `x265-fair` do neither. docs/anchors.md tells how much it is.
"""
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import torch
from av.bitstream import BitStreamFilterContext
from av.video.frame import PictureType

from dataloader.picture import frame_planes
from dataloader.source import FrameSource
from dataloader.video_out import picture, tag_color
from util.anchors import AnchorFrame
from util.color import Color, PixelFormat, rgb_to_yuv, yuv_to_float_rgb
from util.errors import InputError
from util.video import ColorTags

PIXELS = PixelFormat("420", 8)


@dataclass(frozen=True)
class Setting:
    """One library in one setting.

    Attributes:
        library: as PyAV and the library's parameter option call it.
        codec: PyAV's decoder.
        preset: of the library.
        parameters: appended to the library's own.
        filter: of FFmpeg's bitstream filters, applied to the stream before it is counted and decoded.
    """
    library: str
    codec: str
    preset: str
    parameters: str = ""
    filter: str = ""


SETTINGS = {"x264": Setting("x264", "h264", "veryfast"),
            "x264-fair": Setting("x264", "h264", "veryfast", ":psy=0", "filter_units=remove_types=6"),
            "x265": Setting("x265", "hevc", "veryslow", ":log-level=error"),
            "x265-fair": Setting("x265", "hevc", "veryslow", ":log-level=error:info=0:psy-rd=0:psy-rdoq=0")}


class LibraryEncoder:
    """An Anchor.

    Args:
        name: a key of SETTINGS.
        color: of the YUV that is coded.
        keyint: frames from one I-frame to the next.
        preset: instead of the setting's, which makes it another anchor.
    """

    qps = range(52)

    def __init__(self, name: str, color: Color, keyint: int = 32, preset: str | None = None):
        self.name, self.color, self.keyint = name, color, keyint
        self.setting = SETTINGS[name]
        self.preset = preset or self.setting.preset

    def parameters(self, qp: int) -> str:
        """What the library gets as x264-params or x265-params."""
        return f"qp={qp}:keyint={self.keyint}{self.setting.parameters}"

    def code(self, source: FrameSource, qp: int) -> Iterator[AnchorFrame]:
        """Encode and decode, frame by frame; packets are in display order as zerolatency has no B-frames.

        Raises:
            InputError: a size that the library does not take.
        """
        if source.height % 2 or source.width % 2:
            raise InputError(f"{source.name} is {source.width}x{source.height}, but {self.setting.library} needs "
                             "even sides in 4:2:0; use --test_crop")
        encoder = self._encoder(source, qp)
        decoder = av.CodecContext.create(self.setting.codec, "r")
        decoder.thread_count = 1
        waiting, bits = deque(), deque()

        def coded(frame: av.VideoFrame | None) -> Iterator[AnchorFrame]:
            packets = self._filtered(encoder.encode(frame))
            bits.extend(8 * packet.size for packet in packets)
            for packet in [*packets, *([None] if frame is None else [])]:
                for decoded in decoder.decode(packet):
                    rgb = yuv_to_float_rgb(frame_planes(decoded, PIXELS), PIXELS, self.color)
                    yield AnchorFrame(bits.popleft(), waiting.popleft(), torch.from_numpy(rgb))

        for n, frame in enumerate(source):
            waiting.append(frame)
            plain = picture(rgb_to_yuv(frame.numpy(), PIXELS, self.color), PIXELS, "yuv420p")
            plain.pts, plain.time_base = n, encoder.time_base
            plain.pict_type = PictureType.NONE                                       # the encoder chooses the type
            yield from coded(plain)
        yield from coded(None)
        assert not waiting and not bits

    def _filtered(self, packets: list[av.Packet]) -> list[av.Packet]:
        """The packets without what the setting's filter removes."""
        if not self.setting.filter:
            return packets
        kept = BitStreamFilterContext(self.setting.filter, self.setting.codec)
        return [out for packet in packets for out in kept.filter(packet)]

    def _encoder(self, source: FrameSource, qp: int) -> av.VideoCodecContext:
        encoder = av.CodecContext.create(f"lib{self.setting.library}", "w")
        encoder.width, encoder.height, encoder.pix_fmt = source.width, source.height, "yuv420p"
        encoder.framerate = source.rate or Fraction(25)
        encoder.time_base = 1 / encoder.framerate
        encoder.options = {"preset": self.preset, "tune": "zerolatency",
                           f"{self.setting.library}-params": self.parameters(qp)}
        tag_color(encoder, ColorTags.of(self.color))
        return encoder
