"""HM 16.25 and VTM 17.0 in the settings of the paper (docs/anchors.md): YUV 4:4:4, 8 bits in and out, 10 inside.

The programs and their configuration files are the user's: EncoderApp or TAppEncoder, `encoder_lowdelay_vtm.cfg` or
`encoder_lowdelay_main_rext.cfg`. The reconstruction that the encoder writes is what is measured.
"""
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from dataloader.frames_out import raw_file
from dataloader.raw import RawVideo
from dataloader.source import FrameSource
from util.anchors import AnchorFrame
from util.color import Color, PixelFormat, yuv_to_float_rgb
from util.errors import InputError
from util.video import ColorTags

PIXELS = PixelFormat("444", 8)
CONFIGS = {"VTM": "encoder_lowdelay_vtm.cfg", "HM": "encoder_lowdelay_main_rext.cfg"}
EXTRA = {"VTM": {}, "HM": {"InternalBitDepthC": 10, "OutputBitDepthC": 8}}
PICTURE = re.compile(r"^POC\s+(\d+)\b.*?\)\s+(\d+) bits", re.MULTILINE)


class ReferenceSoftware:
    """An Anchor.

    Args:
        name: "HM" or "VTM".
        encoder, config: the program and its configuration file.
        color: of the YUV that is coded.
        intra_period: frames from one I-frame to the next.

    Raises:
        InputError: either file is missing.
    """

    def __init__(self, name: str, encoder: Path | None, config: Path | None, color: Color, intra_period: int = 32):
        for flag, path in (("--encoder", encoder), ("--config", config)):
            if path is None or not path.is_file():
                raise InputError(f"{name} needs {flag}, and {path} is no file; give the encoder program and "
                                 f"{CONFIGS[name]}")
        self.name, self.encoder, self.config, self.color = name, encoder, config, color
        self.intra_period = intra_period
        self.qps = range(64 if name == "VTM" else 52)

    def command(self, folder: Path, source: FrameSource, frames: int, qp: int) -> list[str]:
        """The encoder's command line; its files are in `folder`."""
        if source.rate is None:
            raise InputError(f"the frame rate of {source.name} is unknown; give --frame_rate")
        settings = {
            "InputFile": folder / "input.yuv", "BitstreamFile": folder / "stream.bin",
            "ReconFile": folder / "recon.yuv",
            "InputBitDepth": 8, "InputChromaFormat": 444, "ChromaFormatIDC": 444, "InternalBitDepth": 10,
            "OutputBitDepth": 8, "DecodingRefreshType": 2, "FrameRate": round(source.rate), "FrameSkip": 0,
            "SourceWidth": source.width, "SourceHeight": source.height, "FramesToBeEncoded": frames, "Level": 4.1,
            "IntraPeriod": self.intra_period, "QP": qp, **EXTRA[self.name]}
        return [str(self.encoder), "-c", str(self.config), *(f"--{name}={value}" for name, value in settings.items())]

    def code(self, source: FrameSource, qp: int) -> Iterator[AnchorFrame]:
        """Write the source as a file, encode it, and read the reconstruction.

        Raises:
            InputError: a size that the encoder does not take, the encoder fails, or its log or files are unexpected.
        """
        if source.height % 8 or source.width % 8:
            raise InputError(f"{source.name} is {source.width}x{source.height}, but {self.name} needs multiples of 8; "
                             "use --test_crop")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            frames = self._write(source, folder / "input.yuv")
            bits = self._run(self.command(folder, source, frames, qp), folder / "stream.bin", frames)
            recon = RawVideo(folder / "recon.yuv", width=source.width, height=source.height, chroma="444", depth=8,
                             color=ColorTags.of(self.color), length=frames)
            for original, planes, count in zip(source, recon.planes(), bits, strict=True):
                yield AnchorFrame(count, original, torch.from_numpy(yuv_to_float_rgb(planes, PIXELS, self.color)))

    def _write(self, source: FrameSource, path: Path) -> int:
        frames = 0
        with raw_file(path, PIXELS, self.color) as write:
            for frame in source:
                write(frame)
                frames += 1
        return frames

    def _run(self, command: list[str], stream: Path, frames: int) -> list[int]:
        """Bits of each frame. What the file has beyond the log's sum (parameter sets) goes to the first frame."""
        try:
            run = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
        except OSError as error:
            raise InputError(f"{self.encoder} cannot be run ({error.strerror}); give a program") from None
        if run.returncode:
            last = ((run.stderr or run.stdout).strip().splitlines() or ["no message"])[-1]
            raise InputError(f"{self.name} failed with status {run.returncode} ({last}); see its manual")
        logged = {int(poc): int(bits) for poc, bits in PICTURE.findall(run.stdout)}
        if sorted(logged) != list(range(frames)):
            raise InputError(f"{self.name} logged {len(logged)} pictures of {frames}; give HM 16.25 or VTM 17.0")
        extra = 8 * stream.stat().st_size - sum(logged.values()) if stream.is_file() else -1
        if extra < 0:
            raise InputError(f"{self.name}'s stream is missing or smaller than its log says; give HM 16.25 or VTM 17.0")
        return [logged[n] + (extra if n == 0 else 0) for n in range(frames)]
