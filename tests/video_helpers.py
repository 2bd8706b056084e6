"""Small videos of every kind, made with PyAV, and what a container says of one."""
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

TONE = 8000
"""Samples per second of the audio."""


def make_video(path: Path, *, encoder: str = "ffv1", pixels: str = "yuv420p", width: int = 32, height: int = 24,
               frames: int = 4, rate: Fraction = Fraction(25), time_base: Fraction | None = None,
               stamps: list[int] | None = None, tags: tuple[int, int, int, int] = (1, 1, 1, 1),
               turned: int | None = None, interlaced: bool = False, aspect: Fraction | None = None,
               sound: str | None = None, tone: float = 0.2, videos: int = 1, seed: int = 0) -> Path:
    """A video of noise.

    Args:
        tags: matrix, primaries, transfer (H.273) and range (FFmpeg).
        stamps: in the time base; by default at the constant rate.
        sound: encoder of an audio stream.
        tone: its seconds.
    """
    rng = np.random.default_rng(seed)
    options = {"libx264": {"qp": "0", "preset": "ultrafast"}, "ffv1": {"level": "1"}}.get(encoder, {})
    if interlaced:
        options["x264-params"] = "interlaced=1:tff=1"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream(encoder, rate=rate, options=dict(options)) for _ in range(videos)]
        for stream in streams:
            codec = stream.codec_context
            stream.width, stream.height, stream.pix_fmt = width, height, pixels
            stream.time_base = codec.time_base = time_base or 1 / rate
            codec.colorspace, codec.color_primaries, codec.color_trc, codec.color_range = tags
            if aspect:
                codec.sample_aspect_ratio = aspect
            if turned is not None:
                stream.set_display_rotation(turned)
        audio = container.add_stream(sound, rate=TONE) if sound else None
        for n in range(frames):
            for stream in streams:
                frame = noise(rng, width, height, pixels)
                frame.pts, frame.time_base = (stamps[n] if stamps else n), time_base or 1 / rate
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())
        if audio:
            samples = (rng.normal(size=(1, int(TONE * tone))) * 3000).astype(np.int16)
            chunk = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            chunk.sample_rate, chunk.pts, chunk.time_base = TONE, 0, Fraction(1, TONE)
            resampler = av.AudioResampler(format=audio.codec_context.format, layout="mono", rate=TONE,
                                          frame_size=audio.codec_context.frame_size or None)
            for part in [*resampler.resample(chunk), *resampler.resample(None)]:
                container.mux(audio.encode(part))
            container.mux(audio.encode())
    return path


def noise(rng: np.random.Generator, width: int, height: int, pixels: str) -> av.VideoFrame:
    frame = av.VideoFrame(width, height, pixels)
    bits = frame.format.components[0].bits
    for plane in frame.planes:
        wide = bits > 8
        count = plane.buffer_size // (2 if wide else 1)
        values = rng.integers(0, 1 << bits, count, dtype=np.uint16 if wide else np.uint8)
        plane.update(values.astype("<u2" if wide else "u1").tobytes())
    return frame


def facts(path: Path) -> dict:
    """What ffprobe would say of the video stream."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        base, rate, aspect = stream.time_base, stream.average_rate, stream.sample_aspect_ratio
        frames = list(container.decode(stream))
    first = frames[0]
    return {"frames": len(frames), "size": (first.width, first.height), "rate": rate, "aspect": aspect,
            "times": [frame.pts * base for frame in frames],
            "tags": (int(first.colorspace), int(first.color_primaries), int(first.color_trc), int(first.color_range))}


def sound_packets(path: Path) -> list[tuple[bytes, Fraction]]:
    """Every packet of audio and when it begins."""
    with av.open(str(path)) as container:
        return [(bytes(packet), packet.pts * packet.time_base) for packet in container.demux(audio=0) if packet.size]
