"""`./install.sh demo`, shortened, as a user would run it."""
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from helpers import ROOT
from util.comparison.curves import Point
from util.demo import CLIP, Demo, describe_bd_rate, main
from util.errors import InputError


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """(its folder, what it said) of two frames at one rate."""
    out = tmp_path_factory.mktemp("demo")
    done = subprocess.run([sys.executable, "-m", "util.demo", "--frames", "2", "--QP", "42", "--out", str(out)],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_it_evaluates_codes_compares_and_plots(ran):
    out, said = ran
    for words in ("--test --model small", "--compress --model small", "--decompress --model small",
                  "all 1 x 2 decoded frames are those that the encoder had", "HyTIP small", "x264 veryfast",
                  "x265 veryslow", "BD-rate of HyTIP small against x264 veryfast: none, the test has 1 rate points"):
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


def test_the_clip_is_there():
    assert len(list(CLIP.glob("frame_*.png"))) == 33
