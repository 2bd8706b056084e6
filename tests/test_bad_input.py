"""Bad input: exit status 2, one line on stderr that says what, where and what to do, and nothing half-written."""
import importlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from conftest import write_frames
from helpers import ROOT, TINY_FLAGS
from seeded import seeded_video


@pytest.fixture
def data(tmp_path):
    write_frames(tmp_path / "data" / "HEVC-D" / "BQSquare", seeded_video(4, 40, 48, 1))
    return tmp_path / "data"


@pytest.fixture
def refused(hytip, data, weights, tmp_path):
    """Run an evaluation that must fail; returns the line."""
    def run(*flags, status=2):
        base = ("--test", *TINY_FLAGS, "-data", data, "--test_dataset", "HEVC-D", "--test_seqs", "BQSquare",
                "--test_seq_len", 4, "--weights", weights, "--save_dir", tmp_path / "out", "--device", "cpu")
        code, out, err = hytip(*base, *flags)
        assert (code, out) == (status, ""), err
        assert err.startswith("HyTIP: error: ") and err.count("\n") == 1, err
        assert not (tmp_path / "out").exists() or not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
        return err
    return run


def test_the_base_command_works(hytip, data, weights, tmp_path):
    status, _, err = hytip("--test", *TINY_FLAGS, "-data", data, "--test_dataset", "HEVC-D", "--test_seqs", "BQSquare",
                           "--test_seq_len", 4, "--weights", weights, "--save_dir", tmp_path / "out", "--device", "cpu")
    assert (status, err) == (0, "")


@pytest.mark.parametrize("flags, words", [
    (("--QP", 64), ["--QP 64 is outside 0..63"]),
    (("--QP", -1), ["--QP -1 is outside 0..63"]),
    (("--QP", "high"), ["--QP", "high"]),
    (("--QP", 5, "--iframe_quality", 64), ["--iframe_quality 64 is outside 0..63"]),
    (("--QP", 5, 6, "--iframe_quality", 1), ["one per QP"]),
    (("--QP", 5, 5), ["twice"]),
    (("--gop", 0), ["--gop 0", "at least 1"]),
    (("--test_seq_len", 0), ["--test_seq_len 0"]),
    (("--portable", "--precision", "bfloat16"), ["--portable", "float64", "--precision bfloat16", "leave one"]),
    (("--precision", "int8"), ["--precision", "int8"]),
    (("--align_factor", 8), ["--align_factor 8", "multiple of 16"]),
    (("--index_map", 0, 1, 2), ["--index_map has 3 entries", "--rate_gop_size 8"]),
    (("--index_map", *[3] * 8), ["--index_map entry 3 is outside 0..2"]),
    (("--test_dataset", "HEVC-X"), ["--test_dataset HEVC-X is unknown", "UVG"]),
    (("--test_seqs", "Beauty"), ["--test_seqs Beauty is not in HEVC-D", "BlowingBubbles"]),
    (("--test_dataset", "UVG", "--test_seqs", "Beauty"), ["Beauty does not exist"]),
    (("--color_transform", "BT709"), ["BQSquare_BT709 does not exist"]),
    (("--color_transform", "BT2020"), ["--color_transform", "BT2020"]),
    (("-data", "nowhere"), ["nowhere", "does not exist"]),
    (("--test_seq_len", 5), ["frame_5.png is missing"]),
    (("--ssim",), ["--ssim", "BQSquare is 48x40", "160"]),
    (("--test_crop",), ["--test_crop leaves nothing", "48x40", "--crop_factor 64"]),
    (("--weights", "nowhere.pth.tar"), ["nowhere.pth.tar are missing; name a weight file with --weights"]),
    (("--weights", ROOT / "README.md"), ["README.md cannot be", "name a weight file with --weights"]),
    (("--residual_coder_conf", "nowhere.yml"), ["nowhere.yml: cannot be read"]),
    (("--residual_coder_conf", ROOT / "config" / "Inter_MCR_Hybrid_B=5.yml"), ["variable_rate differs"]),
    (("--residual_coder_conf", ROOT / "config" / "Inter.yml"), ["tiny.pth.tar", "another architecture"]),
    (("--device", "cuda:7"), ["--device"]),
    (("--threads", 0), ["--threads 0"]),
    (("--unheard_of",), ["--unheard_of"]),
])
def test_flags(refused, flags, words):
    line = refused(*flags)
    assert all(word in line for word in words), line


def test_no_command(hytip):
    status, out, err = hytip()
    assert (status, out) == (2, "") and err.count("\n") == 1 and "encode, decode, eval" in err and "--test" in err
    assert hytip("--compute_decode_macs")[0] == 2


@pytest.mark.parametrize("damage", ["truncate", "text", "empty", "code"])
def test_damaged_weights(refused, weights, tmp_path, damage):
    path = tmp_path / "broken.pth.tar"
    data = weights.read_bytes()
    path.write_bytes({"truncate": data[:len(data) // 2], "text": b"<html>404</html>", "empty": b"",
                      "code": b"cos\nsystem\n(S'true'\ntR."}[damage])
    assert "broken.pth.tar" in refused("--weights", path)


def test_broken_yaml(refused, tmp_path):
    (tmp_path / "broken.yml").write_text("model_params: [")
    assert "not valid YAML" in refused("--residual_coder_conf", tmp_path / "broken.yml")


def test_the_first_missing_frame_is_named(refused, data):
    (data / "HEVC-D" / "BQSquare" / "frame_2.png").unlink()
    (data / "HEVC-D" / "BQSquare" / "frame_3.png").unlink()
    assert "frame_2.png is missing" in refused()
    assert "frame_2.png is missing" in refused("--full_seq")


def test_an_empty_folder(refused, data):
    for path in (data / "HEVC-D" / "BQSquare").iterdir():
        path.unlink()
    assert "frame_1.png is missing" in refused("--full_seq")


@pytest.mark.parametrize("n", [1, 3])
def test_a_frame_that_is_no_image(refused, data, n):
    path = data / "HEVC-D" / "BQSquare" / f"frame_{n}.png"
    whole = path.read_bytes()
    for content in (b"", b"no image", whole[:60], whole[:len(whole) // 2]):
        path.write_bytes(content)
        assert f"frame_{n}.png" in refused()


def test_frames_of_different_sizes(refused, data):
    write_frames(data / "other", seeded_video(1, 40, 50, 2))
    (data / "other" / "frame_1.png").rename(data / "HEVC-D" / "BQSquare" / "frame_3.png")
    line = refused()
    assert "frame_3.png is 50x40" in line and "frame_1.png is 48x40" in line


@pytest.mark.parametrize("mode, dtype, shape", [("RGBA", np.uint8, (40, 48, 4)), ("I;16", np.uint16, (40, 48))])
def test_frames_that_are_not_8_bit_rgb(refused, data, mode, dtype, shape):
    Image.fromarray(np.zeros(shape, dtype)).save(data / "HEVC-D" / "BQSquare" / "frame_1.png")
    assert "no 8-bit RGB image" in refused()


def test_an_output_folder_that_cannot_be(refused, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused("--save_dir", tmp_path / "file" / "below")


def test_as_a_program(data, tmp_path):
    """The same in a process of its own: no traceback, no warnings, the right status."""
    command = [sys.executable, str(ROOT / "HyTIP.py"), "--test", "-data", str(data), "--test_dataset", "HEVC-D",
               "--test_seqs", "BQSquare", "--test_seq_len", "4", "--weights", str(tmp_path / "PSNR-RGB.pth.tar"),
               "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "get PSNR-RGB.pth.tar from the release page of github.com/NYCU-MAPL/HyTIP" in done.stderr
    assert str(tmp_path / "PSNR-RGB.pth.tar") in done.stderr


@pytest.mark.parametrize("module", ["util.anchors.__main__", "util.comparison.__main__", "dataloader.prepare"])
@pytest.mark.parametrize("flags", [(), ("--unheard_of",), ("x265", "--QP", "high")])
def test_the_other_programs_refuse_in_one_line_too(module, flags, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["program", *flags])
    assert importlib.import_module(module).main() == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "error: " in err and "--help" in err, err
