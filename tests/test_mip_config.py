"""Configurations of DCVC-MIP: what ships, and that each wrong combination is refused by the name of its key."""
import pytest

from config.loader import build_config
from models.catalogue import codec_class, find_model
from models.mip.config import MipConfig, MipParams
from seeded_mip import ROW_FILES, ROWS, row_config
from util.errors import InputError

ON = {"offset_diversity": True}
SWITCHES = {
    "A": {}, "B": ON, "B_flow": {**ON, "motion_guidance": "flow"}, "C": {**ON, "motion_guidance": "feature"},
    "D": {**ON, "motion_guidance": "feature", "motion_condition": "feature"}}
SWITCHES |= {
    "D_offsets": {**SWITCHES["D"], "motion_condition": "offsets"},
    "E": {**SWITCHES["D"], "context_refine": "tcr"},
    "D_tcr1": {**SWITCHES["D"], "context_refine": "tcr", "context_refine_scale": 1},
    "D_tcr2": {**SWITCHES["D"], "context_refine": "tcr", "context_refine_scale": 2},
    "D_od4": {**SWITCHES["D"], "context_refine": "offset_diversity"},
    "D_entropy": {**SWITCHES["D"], "entropy_rstb": True}}


@pytest.mark.parametrize("row", ROWS)
def test_rows_that_ship(row):
    assert row_config(row).MIP_Params == MipParams(**SWITCHES[row])
    model = find_model(ROW_FILES / f"{row}.yml")
    assert codec_class(model).config_type is MipConfig and model.paper == "DCVC-MIP (CVPR 2023)"


def test_the_model_is_the_whole():
    assert find_model("dcvc-mip").path.name == "E.yml"


def test_numbers_that_are_absent_are_the_papers():
    params = build_config("x.yml", "MIP_Params", {}, MipParams)
    assert params == MipParams() and not params.offset_diversity and params.refined_scale is None
    numbers = ("offset_groups", "offset_num", "offset_magnitude", "context_refine_heads", "context_refine_kernels",
               "swin_window", "swin_mlp_ratio", "entropy_rstb_heads", "entropy_rstb_kernel")
    assert [getattr(params, key) for key in numbers] == [16, 2, 40, 4, (3, 1, 3), 4, 2, 8, 0]
    assert MipParams(**SWITCHES["E"]).refined_scale == 4


@pytest.mark.parametrize("key, given", [
    ("motion_guidance", {"motion_guidance": "feature"}),
    ("motion_guidance", {**ON, "motion_guidance": "flows"}),
    ("motion_condition", {"motion_condition": "feature"}),
    ("motion_condition", {**ON, "motion_condition": "offsets", "offset_num": 1}),
    ("context_refine", {"context_refine": "offset_diversity"}),
    ("context_refine", {"context_refine": True}),
    ("context_refine_scale", {**ON, "context_refine": "offset_diversity", "context_refine_scale": 2}),
    ("context_refine_scale", {"context_refine_scale": 4}),
    ("context_refine_scale", {"context_refine": "tcr", "context_refine_scale": 3}),
    ("context_refine_scale", {"context_refine": "tcr", "context_refine_scale": True}),
    ("context_refine_heads", {"context_refine": "tcr", "context_refine_heads": 3}),
    ("context_refine_kernels", {"context_refine": "tcr", "context_refine_kernels": [3, 1]}),
    ("context_refine_kernels", {"context_refine": "tcr", "context_refine_kernels": [3, 2, 3]}),
    ("context_refine_kernels", {"context_refine": "tcr", "context_refine_kernels": [0, 1, 3]}),
    ("context_refine_kernels", {"context_refine": "tcr", "context_refine_kernels": [3, -1, 3]}),
    ("offset_groups", {**ON, "offset_groups": 12}),
    ("offset_groups", {**ON, "offset_groups": 0}),
    ("swin_window", {"context_refine": "tcr", "swin_window": 5}),
    ("entropy_rstb_heads", {"entropy_rstb": True, "entropy_rstb_heads": 5}),
    ("entropy_rstb_kernel", {"entropy_rstb": True, "entropy_rstb_kernel": 2}),
    ("ofset_groups", {"ofset_groups": 16})])
def test_wrong_combinations_name_the_key(key, given):
    with pytest.raises(InputError, match=rf"\b{key}\b"):
        build_config("x.yml", "model_params", {"MIP_Params": given}, MipConfig)


@pytest.mark.parametrize("given", [
    {"context_refine": "tcr"}, {"entropy_rstb": True, "entropy_rstb_heads": 6, "entropy_rstb_kernel": 3},
    {"context_refine": "tcr", "context_refine_kernels": [3, 0, 3], "swin_window": 2},
    {**ON, "offset_groups": 8, "offset_num": 4, "motion_condition": "offsets"}])
def test_other_combinations_are_possible(given):
    build_config("x.yml", "model_params", {"MIP_Params": given}, MipConfig)
