"""What runs say in the end."""
from fractions import Fraction

import pytest

from conftest import write_frames
from helpers import TINY_FLAGS
from seeded import seeded_video
from util.cli.words import Coded, count, outcome


def test_one_video():
    video = Coded(frames=2, width=100, height=50, bits=8000.0, rate=Fraction(30000, 1001))
    assert outcome([video], {"PSNR": 31.416, "MS-SSIM": 0.98765}, 4.0) == \
        "2 frames of 100x50, 1,000 bytes, 0.8000 bpp, 119.9 kbit/s, PSNR 31.42 dB, MS-SSIM 0.9877, 0.5 frames/s"


def test_what_is_not_known_is_not_said():
    assert outcome([Coded(1, 10, 10, 80.0)], {}, 0.5, estimated=True) == \
        "1 frame of 10x10, 10 bytes estimated, 0.8000 bpp, 2 frames/s"


def test_several_sequences_are_summed():
    videos = [Coded(2, 10, 10, 100.0, 25), Coded(1, 20, 10, 60.0, 50)]
    assert outcome(videos, {"PSNR": 30.0}, 3.0) == \
        "3 frames of 2 sequences, 20 bytes, 0.4000 bpp, PSNR 30.00 dB, 1 frames/s"


@pytest.mark.parametrize("number, words", [(0, "0 frames"), (1, "1 frame"), (2, "2 frames")])
def test_count(number, words):
    assert count(number, "frame") == words


def test_an_evaluation_ends_with_a_line_per_rate(hytip, weights, tmp_path):
    """The figures are those of the summary."""
    write_frames(tmp_path / "clip", seeded_video(2, 40, 48, 1))
    status, out, err = hytip("--test", *TINY_FLAGS, "--input", tmp_path / "clip", "--frame_rate", 25, "--QP", 3, 60,
                             "--frames", 5, "--weights", weights, "--save_dir", tmp_path / "out", "--device", "cpu")
    lines = out.splitlines()
    assert status == 0 and len(lines) == 2
    assert err == f"HyTIP: warning: {tmp_path / 'clip'} has 2 frames; --frames 5 asks for more\n"
    for line, qp in zip(lines, (3, 60)):
        summary, = (tmp_path / "out" / str(qp)).glob("brief_summary_*.txt")
        quality, rate = map(float, summary.read_text().splitlines()[1].split()[1:3])
        assert line.startswith(f"QP {qp}: 2 frames of 48x40, ")
        assert line.endswith(f"; reports in {tmp_path / 'out' / str(qp)}")
        assert f"{rate:.4f} bpp" in line and f"PSNR {quality:.2f} dB" in line
        assert f" {rate * 48 * 40 * 25 / 1000:.1f} kbit/s" in line
