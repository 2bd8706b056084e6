"""x265 with the DCVC setting, through PyAV: 4:2:0 8 bits, veryslow, zerolatency, fixed QP, an I-frame every 32 frames.

Two settings. `x265` is the command line that papers use. It spends about 2.3 kB on an SEI message with its own settings
and tunes for looks (psy-rd, psy-rdoq), which costs PSNR; `x265-fair` turns both off. docs/anchors.md tells how much.
"""
from collections import deque
from collections.abc import Iterator
from fractions import Fraction

import av
import torch
from av.video.frame import PictureType

from dataloader.source import FrameSource
from dataloader.video import frame_planes
from dataloader.video_out import picture, tag_color
from util.anchors import AnchorFrame
from util.color import Color, PixelFormat, rgb_to_yuv, yuv_to_float_rgb
from util.errors import InputError

PIXELS = PixelFormat("420", 8)
SETTINGS = {"x265": "", "x265-fair": ":info=0:psy-rd=0:psy-rdoq=0"}


class X265:
    """An Anchor.

    Args:
        name: a key of SETTINGS.
        color: of the YUV that is coded.
        keyint: frames from one I-frame to the next.
        preset: x265's; anything but "veryslow" is no anchor of the papers.
    """

    qps = range(52)

    def __init__(self, name: str, color: Color, keyint: int = 32, preset: str = "veryslow"):
        self.name, self.color, self.keyint, self.preset = name, color, keyint, preset

    def parameters(self, qp: int) -> str:
        """What libx265 gets as x265-params."""
        return f"qp={qp}:keyint={self.keyint}:log-level=error{SETTINGS[self.name]}"

    def code(self, source: FrameSource, qp: int) -> Iterator[AnchorFrame]:
        """Encode and decode, frame by frame; packets are in display order as zerolatency has no B-frames.

        Raises:
            InputError: a size that x265 does not take.
        """
        if source.height % 2 or source.width % 2:
            raise InputError(f"{source.name} is {source.width}x{source.height}, but x265 needs even sides in 4:2:0; "
                             "use --test_crop")
        encoder = self._encoder(source, qp)
        decoder = av.CodecContext.create("hevc", "r")
        decoder.thread_count = 1
        waiting, bits = deque(), deque()

        def coded(frame: av.VideoFrame | None) -> Iterator[AnchorFrame]:
            packets = encoder.encode(frame)
            bits.extend(8 * packet.size for packet in packets)
            for packet in [*packets, *([None] if frame is None else [])]:
                for decoded in decoder.decode(packet):
                    rgb = yuv_to_float_rgb(frame_planes(decoded, PIXELS), PIXELS, self.color)
                    yield AnchorFrame(bits.popleft(), waiting.popleft(), torch.from_numpy(rgb))

        for n, frame in enumerate(source):
            waiting.append(frame)
            plain = picture(rgb_to_yuv(frame.numpy(), PIXELS, self.color), PIXELS, "yuv420p")
            plain.pts, plain.time_base = n, encoder.time_base
            plain.pict_type = PictureType.NONE                                              # x265 chooses the type
            yield from coded(plain)
        yield from coded(None)
        assert not waiting and not bits

    def _encoder(self, source: FrameSource, qp: int) -> av.VideoCodecContext:
        encoder = av.CodecContext.create("libx265", "w")
        encoder.width, encoder.height, encoder.pix_fmt = source.width, source.height, "yuv420p"
        encoder.framerate = source.rate or Fraction(25)
        encoder.time_base = 1 / encoder.framerate
        encoder.options = {"preset": self.preset, "tune": "zerolatency", "x265-params": self.parameters(qp)}
        tag_color(encoder, self.color)
        return encoder
