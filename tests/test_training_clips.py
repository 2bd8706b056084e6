"""Training data: layouts, crops, fractions of the data set, corrupt clips, and what follows the sample index."""
import numpy as np
import pytest
import torch
from PIL import Image
from training_helpers import phase_file, write_clips

from dataloader.clips import ATTEMPTS, ClipRecipe, EpochClips, collate, find_clips, read_clip
from dataloader.sampling import EpochOrder, Share
from toy_codec import toy_options
from util.errors import InputError
from util.training import trainer
from util.training.main import train


def write_frame(path, value, height=40, width=48, size=None):
    """A frame whose pixels tell where they are: red = row, green = column, blue = value."""
    y, x = np.mgrid[0:height, 0:width]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack((y, x, np.full_like(x, value)), -1).astype(np.uint8)).save(path)


@pytest.fixture
def septuplets(tmp_path):
    for clip in ("00001/0001", "00001/0002", "00096/0005"):
        for n in range(1, 8):
            write_frame(tmp_path / "vimeo_septuplet/sequences" / clip / f"im{n}.png", n)
    return tmp_path


def order_of(clips, **changes):
    return EpochOrder(**{"seed": 0, "epoch": 1, "clips": clips, "fraction": 1.0, "batch_size": 8, **changes})


def test_vimeo_and_bvi_layouts(septuplets):
    vimeo = find_clips("Vimeo-90k", septuplets)
    assert [clip.folder.name for clip in vimeo.clips] == ["0001", "0002", "0005"] and not vimeo.free
    frames = read_clip(vimeo.clips[0], ClipRecipe(5, 32, False), vimeo.free, np.random.default_rng(0))
    assert frames.shape == (5, 3, 32, 32) and frames.dtype == torch.uint8
    assert frames[:, 2].float().mean((1, 2)).tolist() == [1, 2, 3, 4, 5]

    for n in range(64):
        write_frame(septuplets / "BVI-DVC" / "Aclip" / f"Frame_{n}.png", n, 32, 32)
    bvi = find_clips("BVI-DVC", septuplets)
    seen = set()
    for seed in range(40):
        frames = read_clip(bvi.clips[0], ClipRecipe(10, 32, False), bvi.free, np.random.default_rng(seed))
        steps = frames[:, 2, 0, 0].int().diff().unique()
        assert len(steps) == 1
        seen.add(steps.item())
    assert seen == {-2, -1, 1, 2}


def test_any_folder_of_clips(tmp_path):
    for n in (2, 10, 1):
        write_frame(tmp_path / "a b" / f"shot {n}.png", n)
    write_frame(tmp_path / "HEVC-B" / "Kimono1" / "frame_1.png", 1)      # a test sequence
    found = find_clips("folder", tmp_path)
    assert [clip.folder.name for clip in found.clips] == ["a b"]
    assert [path.name for path in found.clips[0].frame_paths()] == ["shot 1.png", "shot 2.png", "shot 10.png"]


def test_every_frame_gets_the_same_crop_and_flip(septuplets):
    clips = find_clips("Vimeo-90k", septuplets)
    seen = set()
    for seed in range(30):
        frames = read_clip(clips.clips[0], ClipRecipe(3, 32, True), clips.free, np.random.default_rng(seed))
        assert torch.equal(frames[0, :2], frames[1, :2]) and torch.equal(frames[0, :2], frames[2, :2])
        top, columns = frames[0, 0, 0, 0].item(), frames[0, 1, 0].int()
        assert torch.equal(frames[0, 0, :, 0].int(), torch.arange(top, top + 32))
        assert columns.diff().unique().item() in (1, -1)
        seen.add((columns[1] - columns[0]).item())
        order = frames[:, 2, 0, 0].int().diff()
        assert order.unique().item() in (1, -1)
    assert seen == {1, -1}


def test_random_starts_cover_the_septuplet_in_both_directions():
    recipe = ClipRecipe(3, 32, random_start=True)
    chosen = {tuple(recipe.choose(7, False, np.random.default_rng(seed))) for seed in range(200)}
    assert chosen == {tuple(range(s, s + 3)) for s in range(5)} | {tuple(range(s, s - 3, -1)) for s in range(2, 7)}


@pytest.mark.parametrize("free", [False, True])
def test_a_share_of_the_clips_stands_still(free):
    recipe = ClipRecipe(3, 32, random_start=False, still=0.25)
    chosen = [recipe.choose(7, free, np.random.default_rng(seed)) for seed in range(400)]
    still = {indices[0] for indices in chosen if len(set(indices)) == 1}
    assert still == set(range(7))                                  # any frame
    assert 70 < sum(len(set(indices)) == 1 for indices in chosen) < 130
    moving = ClipRecipe(3, 32, random_start=False)                 # 0: nothing is drawn for it, old runs are repeated
    assert moving.choose(7, True, np.random.default_rng(0)) == [5, 3, 1]


def test_phases_say_what_is_taken_of_clips(tmp_path, toy, monkeypatch):
    """Frames, crop, and how many stand still reach the loader of each phase."""
    taken = []

    class Watched(EpochClips):
        def __init__(self, clips, order, recipe, qps):
            taken.append(recipe)
            super().__init__(clips, order, recipe, qps)

    monkeypatch.setattr(trainer, "EpochClips", Watched)
    common = {"stage": "fullgop", "RNN": 1, "loss_on": {"R": "rate", "D": "distortion"}}
    phases = {"moving": {**common, "end_epoch": 1, "max_num_Pframe": 1},
              "still": {**common, "end_epoch": 2, "max_num_Pframe": 2, "still": 0.25, "crop_size": 16}}
    train(toy_options(tmp_path, train_data=write_clips(tmp_path / "clips", frames=3, side=40),
                      train_conf=phase_file(tmp_path / "phases.yml", phases)))
    assert taken == [ClipRecipe(2, 32, False), ClipRecipe(3, 16, False, still=0.25)]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_steps_differ_in_the_frames_before_a_clip(tmp_path, toy, monkeypatch, accumulate):
    """By their place in the epoch alone: all parts of a step, and so all processes, have the same number."""
    seen, forward = [], trainer.ClipLoss.forward

    def watched(self, frames, qp, keys, before=0):
        seen.append(before)
        return forward(self, frames, qp, keys, before)

    monkeypatch.setattr(trainer.ClipLoss, "forward", watched)
    phases = {"late": {"stage": "fullgop", "RNN": 1, "loss_on": {"R": "rate", "D": "distortion"}, "end_epoch": 1,
                       "max_num_Pframe": 1, "late": 5, "steps_per_epoch": 6, "batch_size": 2}}
    train(toy_options(tmp_path, train_data=write_clips(tmp_path / "clips", frames=3, side=40), accumulate=accumulate,
                      train_conf=phase_file(tmp_path / "phases.yml", phases)))
    expected = [order_of(2, epoch=1).frames_before(step, 5) for step in range(6)]
    assert seen == [before for before in expected for _ in range(accumulate)] and len(set(expected)) > 2


def test_an_epoch_is_a_fresh_random_part():
    parts = [order_of(100, fraction=0.5, epoch=epoch).order for epoch in (1, 2, 3)]
    for part in parts:
        assert len(part) == 50 == len(set(part.tolist()))
    assert len(set(parts[0].tolist()) | set(parts[1].tolist()) | set(parts[2].tolist())) > 75
    assert sorted(order_of(100).order.tolist()) == list(range(100))
    assert np.array_equal(order_of(100, epoch=2).order, order_of(100, epoch=2).order)


@pytest.mark.parametrize("batch", [1, 3, 7, 8, 64])
def test_rates_are_drawn_from_strata(batch):
    order = order_of(200 * batch, batch_size=batch)
    for i in range(batch):
        drawn = {order.rate(step * batch + i, 64) for step in range(200)}
        low, high = round(64 * i / batch), round(64 * (i + 1) / batch) - 1
        assert min(drawn) >= low and max(drawn) <= high
        assert len(drawn) >= min(8, high - low + 1)


@pytest.mark.parametrize(("processes", "accumulate"), [(1, 1), (1, 3), (2, 1), (3, 2), (8, 2)])
def test_shares_add_up_to_the_batch(processes, accumulate):
    order = order_of(19, batch_size=7)                                # two batches of 7, one of 5
    seen = {step: [] for step in range(3)}
    for rank in range(processes):
        parts = list(Share(rank, processes, accumulate).micro_batches(order))
        assert [part.step for part in parts if part.last] == [0, 1, 2]
        for part in parts:
            if part.real:
                seen[part.step] += part.samples
        assert all(len(part.samples) <= -(-7 // (processes * accumulate)) for part in parts)
    assert {step: sorted(samples) for step, samples in seen.items()} == {
        0: list(range(7)), 1: list(range(7, 14)), 2: list(range(14, 19))}
    resumed = list(Share(0, processes, accumulate).micro_batches(order, 2))
    assert resumed == [part for part in Share(0, processes, accumulate).micro_batches(order) if part.step == 2]


def test_samples_do_not_depend_on_their_batch(septuplets):
    clips = find_clips("Vimeo-90k", septuplets)
    data = EpochClips(clips, order_of(3, batch_size=3), ClipRecipe(3, 32, True), range(64))
    together = collate([data[0], data[1], data[2]])
    assert torch.equal(together.frames[1], data[1].frames)
    assert together.noise_key[1] == data[1].noise_key != data[2].noise_key
    other = EpochClips(clips, order_of(3, batch_size=3, seed=1), ClipRecipe(3, 32, True), range(64))
    assert data[1].noise_key != other[1].noise_key


@pytest.mark.parametrize("damage", ["truncated", "missing", "text", "size", "small"])
def test_a_corrupt_clip_is_replaced_and_named(septuplets, damage):
    folder = septuplets / "vimeo_septuplet/sequences/00001/0002"
    victim = folder / "im1.png"
    if damage == "truncated":
        victim.write_bytes(victim.read_bytes()[:-40])
    elif damage == "missing":
        victim.unlink()
    elif damage == "text":
        victim.write_text("no picture")
    elif damage == "size":
        write_frame(victim, 1, 60, 60)
    else:
        for n in range(1, 8):
            write_frame(folder / f"im{n}.png", n, 16, 16)
    clips = find_clips("Vimeo-90k", septuplets)
    order = order_of(3)
    data = EpochClips(clips, order, ClipRecipe(7, 32, False), range(64))
    place = order.order.tolist().index(1)
    sample = data[place]
    assert str(folder) in sample.corrupt[0]
    assert sample.frames.shape == (7, 3, 32, 32)
    assert torch.equal(sample.frames, data[place].frames)
    assert all(not data[other].corrupt for other in range(3) if other != place)


def test_hopeless_data_is_an_error(tmp_path):
    write_frame(tmp_path / "only" / "1.png", 1)
    data = EpochClips(find_clips("folder", tmp_path), order_of(1), ClipRecipe(3, 32, False), range(64))
    with pytest.raises(InputError, match=f"{ATTEMPTS} training clips in a row cannot be used.*has 1 frames"):
        data[0]


def test_missing_data_names_the_layout(tmp_path):
    with pytest.raises(InputError, match="no training clips of Vimeo-90k.*im{1..7}.png.*--train_data"):
        find_clips("Vimeo-90k", tmp_path / "nowhere")
    with pytest.raises(InputError, match="--train_dataset Kinetics is unknown"):
        find_clips("Kinetics", tmp_path)
