"""Configuration files: all released ones build, and every mistake is named."""
from dataclasses import asdict

import pytest
import yaml

from config import load_config
from helpers import INTER_CONFIGS, MOTION_CONFIGS, ROOT, TINY, full_config
from models.hytip.codec import HyTIP
from models.hytip.config import (
    InterBuffer,
    InterConfig,
    IntraConfig,
    ModelConfig,
    MotionBuffer,
    MotionConfig,
    MotionEstimationConfig,
)
from util.errors import InputError

SCHEMAS = {"Motion": MotionConfig, "Inter": InterConfig, "Intra": IntraConfig, "MENet": MotionEstimationConfig}


def test_every_file_of_the_folder_reads():
    for path in (ROOT / "config").glob("[A-Z]*.yml"):
        load_config(path, SCHEMAS[path.stem.split("_")[0]])
    assert {p.stem for p in (ROOT / "config").glob("*.yml")} >= {*MOTION_CONFIGS, *INTER_CONFIGS, "Intra", "MENet"}


def test_the_intra_file_states_the_released_widths():
    assert load_config(ROOT / "config" / "Intra.yml", IntraConfig) == IntraConfig()
    assert load_config(ROOT / "config" / "MENet.yml", MotionEstimationConfig) == MotionEstimationConfig()


@pytest.mark.parametrize("kind", SCHEMAS)
def test_widths_come_from_the_file(kind):
    """Every width that a tiny file names shows in the shapes of the tiny model."""
    tiny = HyTIP(ModelConfig(**{name: load_config(TINY / f"{stem}.yml", SCHEMAS[stem]) for name, stem in (
        ("intra", "Intra"), ("motion_estimation", "MENet"), ("motion", "Motion"), ("inter", "Inter"))}))
    full = HyTIP(full_config())
    network = {"Motion": "motion", "Inter": "inter", "Intra": "intra", "MENet": "motion_estimation"}[kind]
    shapes = {name: tuple(p.shape) for name, p in getattr(full, network).named_parameters()}
    small = {name: tuple(p.shape) for name, p in getattr(tiny, network).named_parameters()}
    assert all(name in small or ".adaptor." in name for name in shapes)      # equal widths need no adaptor
    assert max(max(shape) for shape in shapes.values()) >= 64
    assert max(max(shape) for name, shape in small.items() if "q_" not in name) <= {"MENet": 8}.get(kind, 192)


def write(tmp_path, change, name="Inter"):
    content = yaml.safe_load((ROOT / "config" / f"{name}.yml").read_text())
    change(content)
    path = tmp_path / "wrong.yml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("change, words", [
    (lambda c: c["model_params"].update(g_ch_3x=1), ["unknown key 'g_ch_3x'", "allowed are", "g_ch_2x"]),
    (lambda c: c.update(extra=1), ["unknown key 'extra'", "model_params"]),
    (lambda c: c["model_params"].pop("g_ch_4x"), ["'g_ch_4x' is missing"]),
    (lambda c: c.pop("model_params"), ["'model_params' is missing"]),
    (lambda c: c["model_params"].update(g_ch_4x="wide"), ["g_ch_4x", "'wide'", "an integer of at least 1"]),
    (lambda c: c["model_params"].update(g_ch_4x=0), ["g_ch_4x", "0", "at least 1"]),
    (lambda c: c["model_params"].update(g_ch_4x=True), ["g_ch_4x", "an integer"]),
    (lambda c: c["model_params"].update(Add_Mask=1), ["Add_Mask", "True or False"]),
    (lambda c: c["model_params"].update(quant_mode="round"), ["quant_mode", "'round'", "estUN_outR"]),
    (lambda c: c["model_params"].update(buffering_type="implicit"), ["buffering_type", "hybrid, None"]),
    (lambda c: c["model_params"].update(no_implicit=True), ["no_implicit", "hybrid"]),
    (lambda c: c["model_params"].pop("feature_channel"), ["feature_channel is missing", "hybrid"]),
    (lambda c: c["model_params"]["CTM_Params"].update(CTM_head=7), ["CTM_head", "7", "128"]),
    (lambda c: c["model_params"]["CTM_Params"].pop("CTM_depth"), ["'CTM_depth' is missing", "CTM_Params"]),
    (lambda c: c["model_params"].update(CTM_Params=[1]), ["CTM_Params", "mapping"]),
    (lambda c: c["model_params"].update(unet_channels=[1, 2]), ["unet_channels", "3 entries"]),
    (lambda c: c["model_params"].update(unet_channels=[1, 2, "x"]), ["unet_channels", "list of integers"]),
    (lambda c: c.update(model_architecture="CondMotion"), ["model_architecture", "'Residual'"]),
])
def test_mistakes_are_named(tmp_path, change, words):
    path = write(tmp_path, change)
    with pytest.raises(InputError) as error:
        load_config(path, InterConfig)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("change, words", [
    (lambda p: p.update(cond_scale_list=[2, 2]), "cond_scale_list"),
    (lambda p: p.pop("implicit_channel"), "implicit_channel"),
    (lambda p: p.update(add_fg=False), "add_fg"),
    (lambda p: p.update(dec_cond_dims=[64, 32]), "dec_cond_dims"),
    (lambda p: p.update(predprior_input_dim=4), "predprior_input_dim"),
    (lambda p: p.update(cond_input_dim=[3]), "cond_input_dim"),
    (lambda p: p.update(cond_kernel_size=[4, 3]), "cond_kernel_size"),
    (lambda p: p.update(temp_source="x"), "temp_source")])
def test_motion_values_that_cannot_work(tmp_path, change, words):
    path = write(tmp_path, lambda content: change(content["model_params"]), "Motion")
    with pytest.raises(InputError, match=words):
        load_config(path, MotionConfig)


def test_keys_of_the_release_that_mean_nothing_here_are_accepted(tmp_path):
    path = write(tmp_path, lambda c: c["model_params"].update(ec_thread=True, stream_part=1, inplace=False))
    assert load_config(path, InterConfig) == load_config(ROOT / "config" / "Inter.yml", InterConfig)


@pytest.mark.parametrize("content, words", [
    ("a: [1,", "not valid YAML"), ("just text", "must hold"), ("", "must hold"), (b"\xff\xfe\x00", "not text"),
    ("model_architecture: Residual\nmodel_params: 3", "mapping")])
def test_unreadable_files(tmp_path, content, words):
    path = tmp_path / "wrong.yml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=words):
        load_config(path, InterConfig)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_config(tmp_path / "none.yml", InterConfig)
    with pytest.raises(InputError, match="cannot be read"):
        load_config(tmp_path, InterConfig)


def test_files_of_different_steps_do_not_mix():
    with pytest.raises(ValueError, match="variable_rate"):
        full_config("Motion", "Inter_MCR_Explicit")


@pytest.mark.parametrize("name", MOTION_CONFIGS + INTER_CONFIGS)
def test_files_say_what_the_schema_understands(name):
    """No key of a file is silently dropped; the released keys of buffers and mask say the same in other words."""
    content = yaml.safe_load((ROOT / "config" / f"{name}.yml").read_text())["model_params"]
    config = load_config(ROOT / "config" / f"{name}.yml", MotionConfig if name in MOTION_CONFIGS else InterConfig)
    buffer, read = asdict(config.buffer), asdict(config)
    if name in MOTION_CONFIGS:
        assert content.pop("cond_source") == ("flow_hat" if buffer["feature"] is None else "flow_hat+ref_mv_feature")
        assert content.pop("temp_source") == ("ref_intensity+ref_mv_y" if buffer["latent"] else "ref_intensity")
        assert content.pop("implicit_channel", None) == buffer["feature"] and buffer["flow"]
        assert (content.pop("cond_input_dim"), content.pop("predprior_input_dim")) == ([2], 5)
    else:
        assert content.pop("Add_Mask") == (config.framework == "masked_conditional_residual")
        assert content.pop("no_implicit") == (buffer["feature"] is None) != buffer["latent"]
        assert content.pop("buffering_type") == ("hybrid" if buffer["latent"] else "None")
        assert content.pop("feature_channel", None) == buffer["feature"] and buffer["frame"]
    for key, value in content.items():
        told = {key: v for key, v in read[key].items() if v is not None} if isinstance(value, dict) else read[key]
        assert (list(told) if isinstance(told, tuple) else told) == value


@pytest.mark.parametrize("name, change, words", [
    ("Motion", {"buffer": {"flow": True, "feature": 2, "latent": True}}, "buffer says what cond_source"),
    ("Inter", {"buffer": {"frame": True, "feature": 2, "latent": True}}, "buffer says what Add_Mask"),
    ("Inter", {"framework": "residual"}, "framework says what Add_Mask says")])
def test_released_and_own_keys_do_not_mix(tmp_path, name, change, words):
    path = write(tmp_path, lambda content: content["model_params"].update(change), name)
    with pytest.raises(InputError, match=words):
        load_config(path, MotionConfig if name == "Motion" else InterConfig)


@pytest.mark.parametrize("schema, values, words", [
    (MotionBuffer, {"flow": False, "feature": None, "latent": True}, "without flow it needs a feature"),
    (MotionBuffer, {"flow": False, "feature": 3, "latent": False}, "without flow it needs the latent"),
    (InterBuffer, {"frame": False, "feature": None, "latent": True}, "without frame it needs a feature")])
def test_buffers_that_cannot_work(schema, values, words):
    with pytest.raises(ValueError, match=words):
        schema(**values)
