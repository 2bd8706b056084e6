"""Weight files: the released layout, exactness, safety, and errors that name the entry."""
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers import seeded_model, tiny_config
from models.catalogue import find_model
from models.hytip.codec import HyTIP
from util.checkpoint import fingerprint, load_model, read_file, released_layout, save_model
from util.errors import InputError


@pytest.fixture
def model() -> HyTIP:
    return seeded_model(tiny_config())


@pytest.mark.parametrize("change", [{"motion": {"no_motion": True}}, {"inter": {"clamp_residual": False}}])
def test_the_fingerprint_knows_what_no_weight_shows(model, change):
    """Such a model decodes other frames from the same weights, so it must not take the same streams."""
    (part, settings), = change.items()
    config = tiny_config()
    other = HyTIP(replace(config, **{part: replace(getattr(config, part), **settings)}))
    other.load_state_dict(model.state_dict())
    assert fingerprint(other) != fingerprint(model)


def test_saving_and_loading_is_exact(model, tmp_path):
    path = tmp_path / "weights.pth.tar"
    save_model(model, path, epoch=7, loss=0.5)
    other = HyTIP(tiny_config())
    assert fingerprint(other) != fingerprint(model)
    load_model(other, path)
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values()):
        assert torch.equal(a, b), name
    assert fingerprint(other) == fingerprint(model)
    assert [p.name for p in tmp_path.iterdir()] == ["weights.pth.tar"]


def test_layout_is_the_released_one(model, tmp_path):
    save_model(model, tmp_path / "w.pth.tar", epoch=7, loss=0.5)
    content = read_file(tmp_path / "w.pth.tar")
    assert set(content) == {"epoch", "state_dict", "optimizer", "loss"}
    assert isinstance(content["loss"], np.float64) and content["loss"] == 0.5
    names = list(content["state_dict"])
    assert "Residual.module.net.q_encoder" in names and "if_model.module.net.q_basic_enc" in names
    assert {name.split(".")[0] for name in names} == {"if_model", "MENet", "CondMotion", "Residual"}
    assert all(name.split(".")[1:3] == ["module", "net"] for name in names)


def save(content: object, path) -> str:
    torch.save(content, path)
    return path


def test_entries_without_use_in_evaluation_are_dropped(model, tmp_path):
    content = released_layout(model)
    content["state_dict"] |= {"criterion.win": torch.ones(1), "feature_frame_generate.module.weight": torch.ones(2),
                              "Residual.module.net.mc_generate_1.weight": torch.ones(3)}
    other = HyTIP(tiny_config())
    load_model(other, save(content, tmp_path / "w.pth.tar"))
    assert fingerprint(other) == fingerprint(model)


def test_pretraining_heads_are_not_needed(tmp_path):
    config = tiny_config("Motion_Explicit", "Inter_CRC_Explicit")
    model = seeded_model(config)
    content = released_layout(model)
    heads = [name for name in content["state_dict"] if "mc_generate_" in name]
    assert heads
    for name in heads:
        del content["state_dict"][name]
    assert any("mc_generator" in name for name in content["state_dict"])
    load_model(HyTIP(config), save(content, tmp_path / "w.pth.tar"))


@pytest.mark.parametrize("change, words", [
    (lambda s: s.pop("Residual.module.net.q_encoder"), "entry Residual.module.net.q_encoder is missing"),
    (lambda s: s.update({"Residual.module.net.extra": torch.ones(1)}), "entry Residual.module.net.extra is unexpected"),
    (lambda s: s.update({"MENet.module.net.mean": torch.ones(2)}), r"net.mean has shape \[2\], not \[3, 1, 1\]"),
    (lambda s: s.update({"MENet.module.net.mean": 3}), "MENet.module.net.mean has shape"),
    (lambda s: s.pop("Residual.module.net.mc_generator.conv1.weight"), "mc_generator.conv1.weight is missing")])
def test_strictness_names_the_entry(model, tmp_path, change, words):
    content = released_layout(model)
    change(content["state_dict"])
    before = fingerprint(model)
    with pytest.raises(InputError, match=words):
        load_model(model, save(content, tmp_path / "w.pth.tar"))
    assert fingerprint(model) == before


def test_another_architecture_is_refused(tmp_path):
    path = tmp_path / "w.pth.tar"
    save_model(seeded_model(tiny_config()), path)
    with pytest.raises(InputError, match="another architecture"):
        load_model(HyTIP(tiny_config("Motion_Explicit", "Inter_MCR_Explicit")), path)


class Payload:
    """What an attacker would store."""

    def __reduce__(self):
        return (print, ("executed",))


def test_pickles_with_code_are_refused(tmp_path, capsys, model):
    for content in (Payload(), {"state_dict": Payload()}, {"state_dict": {}, "loss": Payload()}):
        with pytest.raises(InputError, match="objects other than tensors"):
            load_model(model, save(content, tmp_path / "w.pth.tar"))
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(InputError):
        load_model(model, path)
    assert "executed" not in capsys.readouterr().out


def test_scalars_pickled_by_older_numpy(tmp_path, model):
    """The released `loss` was pickled by NumPy 1, whose module has another name."""
    path = tmp_path / "w.pth.tar"
    save_model(model, path, loss=1.25)
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    for before, after in ((new, old), (old, new)):
        renamed = tmp_path / "renamed.pth.tar"
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(renamed, "w", zipfile.ZIP_STORED) as target:
            for item in source.infolist():
                data = source.read(item)
                if item.filename.endswith("data.pkl"):
                    data = data.replace(b"c" + before, b"c" + after)
                target.writestr(item.filename, data)
        assert read_file(renamed)["loss"] == 1.25


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_truncated_files(model, tmp_path, keep):
    path = tmp_path / "w.pth.tar"
    save_model(model, path)
    data = path.read_bytes()
    path.write_bytes(data[:int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(InputError, match="w.pth.tar"):
        load_model(model, path)


def test_missing_file_says_where_to_get_it_and_where_to_put_it(model, tmp_path):
    with pytest.raises(InputError, match=r"PSNR-RGB.pth.tar are missing; get PSNR-RGB.pth.tar from the release page of "
                                         r"github.com/NYCU-MAPL/HyTIP and put it there"):
        load_model(model, tmp_path / "PSNR-RGB.pth.tar", find_model("hytip").origin)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 1}, {"state_dict": 3}, torch.ones(3)])
def test_files_of_another_kind(model, tmp_path, content):
    with pytest.raises(InputError, match="w.pth.tar"):
        load_model(model, save(content, tmp_path / "w.pth.tar"))


def test_an_interrupted_save_leaves_nothing(model, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(InputError, match="No space left on device"):
        save_model(model, tmp_path / "w.pth.tar")
    assert not list(tmp_path.iterdir())


def test_fingerprint_sees_every_value(model):
    before = fingerprint(model)
    model.inter.q_recon.data[63, 0] += 1e-6
    assert fingerprint(model) != before
