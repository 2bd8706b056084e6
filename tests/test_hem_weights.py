"""Weight files of DCVC-HEM as its authors' releases have them: two, flat, wrapped or not."""
import re

import pytest
import torch

from conftest import write_frames
from models.hem.codec import DCVCHEM
from seeded import seeded_video
from seeded_hem import TINY_HEM, TINY_MODEL, seeded_hem
from util.checkpoint import fingerprint, load_model
from util.errors import InputError


def released(root: str) -> dict[str, torch.Tensor]:
    """The entries of a released file: `image` or `video`."""
    codec = seeded_hem()
    named = {codec.released_name(name): value for name, value in codec.state_dict().items()}
    return {name.removeprefix(f"{root}."): value for name, value in named.items() if name.startswith(f"{root}.")}


def write(folder, image=None, video=None):
    paths = folder / "acmmm2022_image_psnr.pth.tar", folder / "acmmm2022_video_psnr.pth.tar"
    for path, content in zip(paths, (image or released("image"), video or released("video"))):
        torch.save(content, path)
    return paths


WRAPPED = {
    "flat": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "net": lambda state: {"net": state},
    "module": lambda state: {f"module.{name}": value for name, value in state.items()},
    "state_dict, module": lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
}


@pytest.mark.parametrize("form", WRAPPED)
def test_released_forms(tmp_path, form):
    wrap = WRAPPED[form]
    codec = DCVCHEM(TINY_HEM)
    load_model(codec, write(tmp_path, wrap(released("image")), wrap(released("video"))))
    assert fingerprint(codec) == fingerprint(seeded_hem())


def test_the_order_of_the_files_does_not_matter(tmp_path):
    codec = DCVCHEM(TINY_HEM)
    load_model(codec, write(tmp_path)[::-1])
    assert fingerprint(codec) == fingerprint(seeded_hem())


@pytest.mark.parametrize("damaged, damage, message", [
    ("image", lambda state: state.pop("enc.0.conv1.bias"), "entry image.enc.0.conv1.bias is missing"),
    ("video", lambda state: state.pop("y_q_basic"), "entry video.y_q_basic is missing"),
    ("image", lambda state: state.update({"enc.9.bias": torch.zeros(1)}), "entry image.enc.9.bias is unexpected"),
    ("video", lambda state: state.update(mv_y_q_scale=torch.ones(5, 1, 1, 1)), "entry video.mv_y_q_scale has shape")])
def test_files_must_fit_exactly(tmp_path, damaged, damage, message):
    files = {root: released(root) for root in ("image", "video")}
    damage(files[damaged])
    with pytest.raises(InputError, match=re.escape(message)):
        load_model(DCVCHEM(TINY_HEM), write(tmp_path, **files))


@pytest.mark.parametrize("twice, lacking", [("image", "video"), ("video", "image")])
def test_one_file_twice_is_not_enough(tmp_path, twice, lacking):
    with pytest.raises(InputError, match=f"entry {lacking}."):
        load_model(DCVCHEM(TINY_HEM), write(tmp_path, released(twice), released(twice)))


def test_both_files_on_the_command_line(hytip, tmp_path):
    """`--intra_weights` and `--weights` instead of the model's own; each alone is not enough for a model without."""
    image, video = write(tmp_path)
    clip, frames = tmp_path / "clip.hyt", write_frames(tmp_path / "frames", seeded_video(2, 50, 70, 3))
    flags = ("--model", TINY_MODEL, "--intra_weights", image, "--weights", video)
    status, _, err = hytip("--compress", *flags, "--input", frames, "--output", clip, "--QP", 21)
    assert status == 0, err
    status, _, err = hytip("--decompress", *flags, "--input", clip, "--output", tmp_path / "decoded")
    assert status == 0, err
    assert len(list((tmp_path / "decoded").glob("*.png"))) == 2
    status, _, err = hytip("--decompress", *flags[:2], "--weights", video, "--input", clip, "--output", tmp_path / "x")
    assert status == 2 and "image" in err and len(err.splitlines()) == 1
