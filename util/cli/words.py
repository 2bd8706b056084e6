"""What a run says of itself in the end: one line per rate, on a terminal or not."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Coded:
    """What was coded of one video at one rate.

    Attributes:
        frames: how many.
        width, height: of a frame.
        bits: of all of them.
        rate: frames per second of the video, or None (0) when unknown.
    """
    frames: int
    width: int
    height: int
    bits: float
    rate: Fraction | float | None = None


def outcome(videos: Sequence[Coded], qualities: Mapping[str, float], seconds: float, estimated: bool = False) -> str:
    """`32 frames of 416x240, 81,920 bytes, 0.2051 bpp, 512.0 kbit/s, PSNR 31.42 dB, 3.1 frames/s`.

    Args:
        qualities: means by metric; empty where there was nothing to compare with.
        seconds: that coding took, on the wall.
        estimated: the bits are not those of files.
    """
    frames, bits = (sum(getattr(video, name) for video in videos) for name in ("frames", "bits"))
    pixels = sum(video.frames * video.width * video.height for video in videos)
    first = videos[0]
    of = f"of {first.width}x{first.height}" if len(videos) == 1 else f"of {len(videos)} sequences"
    words = [f"{count(frames, 'frame')} {of}", f"{round(bits / 8):,} bytes" + (" estimated" if estimated else ""),
             f"{bits / pixels:.4f} bpp"]
    if len(videos) == 1 and first.rate:
        words.append(f"{bits / frames * float(first.rate) / 1000:.1f} kbit/s")
    words += [f"{name} {value:.4f}" if name == "MS-SSIM" else f"{name} {value:.2f} dB"
              for name, value in qualities.items()]
    return ", ".join([*words, f"{frames / max(seconds, 1e-9):.2g} frames/s"])


def count(number: int, noun: str) -> str:
    """`1 frame`, `2 frames`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
