"""Training clips cut into tiles, and samples taken from them."""
import json

import numpy as np
import pytest
from PIL import Image

from dataloader import tiles
from dataloader.clips import ClipRecipe, find_clips, read_clip
from dataloader.prepare import main


@pytest.fixture
def data(tmp_path):
    """Two clips of 600x300 whose pixels tell where they are; the second has a broken frame."""
    y, x = np.mgrid[:300, :600]
    for name in ("first", "second"):
        folder = tmp_path / "data" / "BVI-DVC" / name
        folder.mkdir(parents=True)
        for n in range(64):
            pixels = np.stack((x // 3, y // 2, np.full_like(x, n)), -1).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"Frame_{n}.png", compress_level=1)
    (folder / "Frame_5.png").write_bytes(b"no picture")
    return tmp_path / "data"


def test_tiles_cover_the_frame():
    assert tiles.corners(600, 256) == [0, 172, 344] and tiles.corners(512, 256) == [0, 256]
    assert tiles.corners(256, 256) == [0]
    assert len(tiles.corners(1920, 512)) * len(tiles.corners(1080, 512)) == 12


def test_clips_are_cut_once_and_sampled_as_one(data, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["crop", "--data", str(data), "--out", str(out), "--size", "256"]) == 2
    said = capsys.readouterr()
    assert "first: 6 tiles" in said.out and said.err.startswith("prepare: error: ") and "second" in said.err
    assert said.err.count("\n") == 1 and not (out / "BVI-DVC" / "second").exists()
    made = {path.name for path in (out / "BVI-DVC" / "first").iterdir()}
    assert made == {f"x{left}_y{top}" for left in (0, 172, 344) for top in (0, 44)}
    with Image.open(out / "BVI-DVC/first/x172_y44/Frame_9.png") as image:
        assert image.size == (256, 256) and image.getpixel((11, 6)) == ((172 + 11) // 3, (44 + 6) // 2, 9)
    stamp = (out / "BVI-DVC/first/x0_y0/Frame_0.png").stat().st_mtime_ns
    main(["crop", "--data", str(data), "--out", str(out), "--size", "256"])
    assert (out / "BVI-DVC/first/x0_y0/Frame_0.png").stat().st_mtime_ns == stamp

    found = find_clips("BVI-DVC", out)
    assert len(found.clips) == 1 and set(found.clips[0].tiles) == made, "an epoch has as many samples as before"
    corners = set()
    for seed in range(40):
        clip = read_clip(found.clips[0], ClipRecipe(3, 256, True), found.free, np.random.default_rng(seed)).numpy()
        corners.add((int(clip[0, 0].min()) * 3, int(clip[0, 1].min()) * 2))
    assert len(corners) == 6


@pytest.mark.parametrize("flags, words", [
    (("--size", "128"), "--size 128 must be at least 256"), (("--jobs", "0"), "--jobs 0"),
    (("--data", "nowhere"), "no training clips of BVI-DVC below nowhere")])
def test_bad_flags(data, tmp_path, capsys, flags, words):
    given = {"--data": str(data), "--out": str(tmp_path / "out"), **dict([flags])}
    assert main(["crop", *(word for pair in given.items() for word in pair)]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1
    assert main(["crop", "--data", str(data), "--out", str(data)]) == 2
    assert json.dumps(str(data))[1:-1] in capsys.readouterr().err
