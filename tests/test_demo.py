"""`./install.sh demo`, shortened."""
import io
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from types import SimpleNamespace

import pytest
from PIL import Image

import HyTIP
from helpers import ROOT
from util.comparison.curves import Point
from util.demo import CLIP, Demo, describe_bd_rate, main, spanning
from util.errors import InputError
from util.program import Ended, exit_status


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """(its folder, what it said) of two frames at one rate."""
    out, said = tmp_path_factory.mktemp("demo"), io.StringIO()

    def run(words: list) -> subprocess.CompletedProcess:
        """The commands in this process, which saves the start of PyTorch."""
        assert words[:2] == [sys.executable, ROOT / "HyTIP.py"]
        return subprocess.CompletedProcess(words, HyTIP.main([*words[2:], "--device", "cpu"]))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.setattr("util.demo.subprocess", SimpleNamespace(run=run))
        patch.setattr("util.demo.ANCHOR_QPS", (28, 36))
        assert main(["--frames", "2", "--QP", "42", "--out", str(out)]) == 0
    return out, said.getvalue()


def test_it_evaluates_codes_compares_and_plots(ran):
    out, said = ran
    for words in ("--test --model small", "--compress --model small", "--decompress --model small",
                  "all 1 x 2 decoded frames are those that the encoder had", "HyTIP small", "x264 veryfast",
                  "x265 veryslow", "BD-rate of HyTIP small against x264 veryfast: none,",
                  "python -m util.comparison --anchor x264"):
        assert words in said, words
    assert (out / "curve.png").stat().st_size > 1000
    assert len(list((out / "decoded" / "42").glob("*.png"))) == 2


def test_a_frame_that_decodes_differently_is_found(ran, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(ran[0], out)
    path = sorted((out / "decoded" / "42").glob("*.png"))[1]
    with Image.open(path) as image:
        pixels = image.copy()
    pixels.putpixel((5, 7), tuple(value ^ 1 for value in pixels.getpixel((5, 7))))
    pixels.save(path)
    with pytest.raises(InputError, match="frame 2 of .*42.*decoded differently"):
        Demo(out, 2, [42])._compare(42)
    Demo(ran[0], 2, [42])._compare(42)


@pytest.mark.parametrize(("flags", "words"), [(["--frames", "34"], "the clip has 33 frames"),
                                              (["--QP", "3", "3"], "0 to 63, each once"), (["--QP", "64"], "0 to 63"),
                                              (["--qps"], "--help")])
def test_bad_flags(flags, words, capsys):
    assert main(flags) == 2
    assert words in capsys.readouterr().err


def test_bd_rates_in_words():
    def curve(factor):
        return [Point(factor * 2.0 ** n, 30.0 + n, 32, 1) for n in range(4)]
    assert describe_bd_rate(curve(1), curve(0.8)) == "-20.0 %"
    assert describe_bd_rate(curve(1), curve(1)[:3]).startswith("none, the test has 3 rate points")


def test_anchors_span_our_range_of_quality_and_little_more():
    anchor = [Point(2.0 ** n, 20.0 + 4 * n, 32, 1) for n in range(6)]                    # 20, 24, ... 40 dB
    ours = [Point(1.0, quality, 32, 1) for quality in (27.0, 33.0)]
    assert [point.quality for point in spanning(anchor, ours)] == [24, 28, 32, 36]
    assert spanning(anchor, anchor) == anchor and spanning(anchor[2:4], ours) == anchor[2:4]


@pytest.mark.parametrize(("interruption", "status"), [(KeyboardInterrupt, 130), (lambda: Ended(15), 143)])
def test_an_interruption_is_no_failure_of_an_anchor(monkeypatch, capsys, tmp_path, interruption, status):
    def interrupted(*_, **__):
        raise interruption()
    monkeypatch.setattr("util.anchors.__main__.measure", interrupted)
    assert exit_status("demo", lambda: Demo(tmp_path, 2, [42])._anchor("x264-fair")) == status
    assert "failed" not in capsys.readouterr().err


@pytest.mark.parametrize("status", [130, 143])
def test_an_interrupted_command_ends_the_demo_as_it_ended(monkeypatch, tmp_path, status):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], status))
    assert exit_status("demo", lambda: Demo(tmp_path, 2, [42])._hytip("--test")) == status


def test_the_clip_is_there():
    assert len(list(CLIP.glob("frame_*.png"))) == 33
