"""`--compare`: the figures are those of the metrics, and what cannot be compared is refused."""
import math

import pytest
import torch
from video_helpers import make_video

from dataloader.open import VideoOptions, open_sink, open_source
from seeded import seeded_video
from util.evaluation.metrics import ms_ssim, psnr
from util.evaluation.yuv import yuv_metric

OPTIONS = VideoOptions(chroma="444", matrix="BT709", range="limited")


def write(path, frames):
    with open_sink(path, *frames.shape[2:], OPTIONS) as put:
        for frame in frames:
            put(frame)
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder, frames = tmp_path_factory.mktemp("videos"), seeded_video(3, 176, 192, 1)
    noisy = (frames + 0.03 * torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    return write(folder / "a.mkv", frames), write(folder / "b.mp4", noisy)


def test_means_over_all_frames(hytip, videos):
    status, out, err = hytip("--compare", *videos)
    assert (status, err) == (0, "")
    pairs = [(a[None] / 255, b[None] / 255) for a, b in zip(*map(open_source, videos), strict=True)]
    for name, metric in (("PSNR", psnr), ("PSNR-YUV", yuv_metric("BT709")), ("MS-SSIM", ms_ssim)):
        line, = (line for line in out.splitlines() if line.split()[0] == name)
        assert float(line.split()[1]) == pytest.approx(sum(metric(b, a) for a, b in pairs) / 3, abs=1e-4)
    assert "VMAF" in out and out.splitlines()[-1].startswith("3 frames of 192x176, means over frames")


def test_equal_videos_and_the_verb(hytip, videos):
    status, out, _ = hytip("compare", videos[0], videos[0], "--frames", 2)
    assert status == 0 and out.splitlines()[-1].startswith("2 frames")
    assert math.isinf(float(out.split()[1])) and "MS-SSIM  1.0000" in out


def test_what_cannot_be_compared(hytip, videos, tmp_path):
    short = write(tmp_path / "short.mkv", seeded_video(2, 176, 192, 1))
    small = make_video(tmp_path / "small.mkv")
    for other, words in ((short, ["a.mkv has more than the 2 frames of the other", "--frames 2"]),
                         (small, ["192x176", "32x24", "one size"]), (tmp_path / "none.mkv", ["does not exist"])):
        status, out, err = hytip("--compare", videos[0], other)
        assert (status, out) == (2, "") and err.count("\n") == 1 and all(word in err for word in words), err
    status, out, _ = hytip("--compare", videos[0], short, "--frames", 2)
    assert status == 0
    status, out, _ = hytip("--compare", small, small)
    assert status == 0 and "MS-SSIM  none: both sides must exceed 160" in out
