"""What each step takes along from its predecessor, and step 1 from DCVC-FM, SPyNet and the intra codec."""
import re

import pytest
import torch
from training_helpers import seeded_network

from helpers import tiny_config
from models.hytip.codec import HyTIP
from models.hytip.training import DCVC_FM, INTRA, SPYNET
from util.errors import InputError
from util.files import atomic_path
from util.training.network import TrainedNetwork
from util.training.starting_points import start_from_checkpoint, start_from_pretrained

EXPLICIT = ("Motion_Explicit", "Inter_MCR_Explicit")
CHAIN = {                                                # restore -> configurations before and after
    "CRC_to_MCR": (("Motion_Explicit", "Inter_CRC_Explicit"), EXPLICIT),
    "Motion_Hybrid": (EXPLICIT, ("Motion_Hybrid_B=6", "Inter_MCR_Explicit")),
    "Inter_Hybrid": (("Motion_Hybrid_B=6", "Inter_MCR_Explicit"), ("Motion_Hybrid_B=6", "Inter_MCR_Hybrid_B=51")),
    "ReduceMotionBufferSize": (("Motion_Hybrid_B=6", "Inter_MCR_Hybrid_B=51"),
                               ("Motion_Hybrid_B=2.125", "Inter_MCR_Hybrid_B=51")),
    "ReduceInterBufferSize": (("Motion_Hybrid_B=2.125", "Inter_MCR_Hybrid_B=51"),
                              ("Motion_Hybrid_B=2.125", "Inter_MCR_Hybrid_B=5")),
    "FA": (("Motion_Hybrid_B=2.125", "Inter_MCR_Hybrid_B=5"),) * 2,
    "CTM": (("Motion_Hybrid_B=2.125", "Inter_MCR_Hybrid_B=5"), ("Motion_Hybrid_B=2.125", "Inter_MCR_Hybrid_B=5_CTM")),
    "context": (("Motion_Hybrid_B=2.125", "Inter_MCR_Hybrid_B=5_CTM"),
                ("Motion_Hybrid_B=2.125", "Inter_MCR_Hybrid_B=5_CTM_Context")),
    "Variable": (("Motion_Hybrid_B=2.125", "Inter_MCR_Hybrid_B=5_CTM_Context"), ("Motion", "Inter")),
    "LongSequence": (("Motion", "Inter"),) * 2}

NEW = {                                                  # what the step leaves new, as regular expressions of names
    "CRC_to_MCR": r"Residual\.MaskGenerator\.",
    "Motion_Hybrid": r"CondMotion\.(feature_generator|feature_extractor\.fusion|temp_prior_fusion_adaptor_1"
                     r"|prior_fusion)\.",
    "Inter_Hybrid": r"Residual\.(feature_adaptor|frame_feature_generator|y_prior_fusion_adaptor_1)\.",
    "ReduceMotionBufferSize": r"CondMotion\.(feature_generator|feature_extractor\.fusion)\.",
    "ReduceInterBufferSize": r"Residual\.(feature_adaptor|frame_feature_generator)\.",
    "FA": r"nothing",
    "CTM": r"Residual\.contextual_(en|de)coder\.CTM\.",
    "context": r"Residual\.context_model\.y_spatial_prior\.",
    "Variable": r"CondMotion\.mv_q_(en|de)coder|Residual\.q_(encoder|decoder|feature|recon)",
    "LongSequence": r"nothing"}

OLD_NAME = {"Motion_Hybrid": ("CondMotion.temp_prior_fusion_adaptor_0", "CondMotion.mv_y_prior_fusion_adaptor_temp_0"),
            "context": ("Residual.context_model.gaussian_conditional", "Residual.gaussian_conditional")}


@pytest.mark.parametrize("restore", CHAIN)
def test_what_carries_over(tmp_path, restore):
    """Everything that the step does not leave new has the predecessor's values, under its old or new name."""
    before, after = CHAIN[restore]
    source, network = seeded_network(tiny_config(*before)), TrainedNetwork(HyTIP(tiny_config(*after)))
    path = tmp_path / "epoch=1.pth.tar"
    torch.save(source.layout(epoch=1), path)
    fresh = {name: value.clone() for name, value in network.entries()}
    lines = start_from_checkpoint(network, path, restore)

    old = dict(source.entries())
    for name, value in network.entries():
        if re.match(NEW[restore], name):
            assert torch.equal(value, fresh[name]), name
            continue
        new_prefix, old_prefix = OLD_NAME.get(restore, ("", ""))
        origin = name.replace(new_prefix, old_prefix) if new_prefix else name
        if restore == "FA":
            origin = re.sub(r"(Residual\.feature_adaptor)\.\d", r"\1.0", name)
        assert torch.equal(value, old[origin]), name
    count = sum(not re.match(NEW[restore], name) for name in fresh)
    assert lines[1] == f"  loaded  {count} of {len(fresh)} entries"
    assert [line.split()[0] for line in lines[1:]] == ["loaded", "renamed", "dropped", "new"]


def test_the_report_names_modules(tmp_path):
    torch.save(seeded_network(tiny_config(*EXPLICIT)).layout(epoch=1), tmp_path / "a.pth.tar")
    network = TrainedNetwork(HyTIP(tiny_config(*CHAIN["Motion_Hybrid"][1])))
    lines = start_from_checkpoint(network, tmp_path / "a.pth.tar", "Motion_Hybrid")
    assert lines[2] == "  renamed CondMotion.mv_y_prior_fusion_adaptor_temp_0 to CondMotion.temp_prior_fusion_adaptor_0"
    assert "CondMotion.PA (" in lines[3] and "CondMotion.mv_y_prior_fusion_adaptor_temp_1 (" in lines[3]
    assert "CondMotion.feature_generator (2)" in lines[4]


def test_the_head_of_step_4_is_dropped_in_step_5(tmp_path):
    source = seeded_network(tiny_config(*CHAIN["Inter_Hybrid"][1]), head=True)
    torch.save(source.layout(epoch=1), tmp_path / "a.pth.tar")
    network = TrainedNetwork(HyTIP(tiny_config(*CHAIN["ReduceMotionBufferSize"][1])))
    lines = start_from_checkpoint(network, tmp_path / "a.pth.tar", "ReduceMotionBufferSize")
    assert "feature_frame_generate.weight (1), feature_frame_generate.bias (1)" in lines[3]


def test_a_file_of_something_else_is_refused(tmp_path):
    torch.save({"state_dict": {"Residual.module.net.nothing": torch.zeros(1)}}, tmp_path / "a.pth.tar")
    with pytest.raises(InputError, match="nothing of it fits this model"):
        start_from_checkpoint(TrainedNetwork(HyTIP(tiny_config())), tmp_path / "a.pth.tar", "CTM")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "b.pth.tar")
    with pytest.raises(InputError, match="has no state_dict"):
        start_from_checkpoint(TrainedNetwork(HyTIP(tiny_config())), tmp_path / "b.pth.tar", "CTM")


STEP_1 = ("Motion_Explicit", "Inter_CRC_Explicit")


def write_pretrained(folder):
    """Files of the three sources with seeded weights, DCVC-FM in its layout: flat, with its own names."""
    folder.mkdir()
    entries = {name: value.clone() for name, value in seeded_network(tiny_config(*STEP_1)).entries()}

    def part(root):
        return {name.removeprefix(f"{root}."): value for name, value in entries.items() if name.startswith(f"{root}.")}

    fm = {}
    for name, value in part("CondMotion").items():
        name = name.replace("mv_y_prior_fusion_adaptor_temp_", "mv_y_prior_fusion_adaptor_")
        name = re.sub(r"^PA\.", "mv_y_prior_fusion.", name)
        if name.startswith("mv_"):
            fm[name] = value
    fm |= {name: value for name, value in part("Residual").items()
           if name.startswith(("context_fusion_net", "feature_extractor", "contextual_encoder",
                               "temporal_prior_encoder", "recon_generation_net", "feature_adaptor_I"))}
    fm["recon_generation_net.recon_conv.weight"] = torch.zeros(3, 99, 3, 3)      # of another width
    for name in ("optic_flow.moduleBasic.0.weight", "feature_adaptor.0.weight", "y_q_enc", "y_spatial_prior.0.weight",
                 "mv_y_spatial_prior.0.weight", "mv_y_q_enc"):
        fm[name] = torch.zeros(2)
    with atomic_path(folder / DCVC_FM) as path:
        torch.save(fm, path)
    spynet = {name: value for name, value in part("MENet").items() if name.startswith("Blocks")}
    torch.save(spynet, folder / SPYNET)
    torch.save(part("if_model"), folder / INTRA[False])
    return entries


def test_step_1_starts_from_dcvc_fm(tmp_path):
    """On a synthetic file of DCVC-FM's layout; the real one has not been tried."""
    entries = write_pretrained(tmp_path / "models")
    network = TrainedNetwork(HyTIP(tiny_config(*STEP_1)))
    fresh = {name: value.clone() for name, value in network.entries()}
    lines = start_from_pretrained(network, tmp_path / "models", ssim=False, from_scratch=False)
    own = dict(network.entries())

    loaded = {name for name in own
              if torch.equal(own[name], entries[name]) and not torch.equal(own[name], fresh[name])}
    for prefix in ("if_model.enc", "MENet.Blocks", "CondMotion.mv_encoder", "CondMotion.PA",
                   "CondMotion.mv_y_prior_fusion_adaptor_temp_0", "CondMotion.mv_y_prior_fusion_adaptor_temp_1",
                   "Residual.context_fusion_net", "Residual.contextual_encoder", "Residual.temporal_prior_encoder"):
        members = {name for name in own if name.startswith(f"{prefix}.") and own[name].is_floating_point()
                   and own[name].numel() and not name.endswith((".beta", ".gamma"))}
        assert members and members <= loaded, prefix
    for name in ("Residual.feature_adaptor_I.weight", "Residual.recon_generation_net.recon_conv.weight",
                 "CondMotion.feature_extractor.down0.0.weight", "Residual.mc_generate_1.weight"):
        assert torch.equal(own[name], fresh[name]), name
    text = "\n".join(lines)
    assert "mv_y_prior_fusion_adaptor_0 to CondMotion.mv_y_prior_fusion_adaptor_temp_0" in text
    assert "mv_y_prior_fusion to CondMotion.PA" in text
    for dropped in ("optic_flow", "feature_adaptor", "y_q_enc", "y_spatial_prior", "mv_y_spatial_prior"):
        assert re.search(rf"dropped.*\b{dropped} \(", text), dropped


@pytest.mark.parametrize(("name", "origin"), [(DCVC_FM, "DCVC-FM release of github.com/microsoft/DCVC"),
                                              (SPYNET, "release page of github.com/NYCU-MAPL/HyTIP"),
                                              (INTRA[False], "DCVC-DC release of github.com/microsoft/DCVC")])
def test_missing_weights_name_file_and_origin(tmp_path, name, origin):
    write_pretrained(tmp_path / "models")
    (tmp_path / "models" / name).unlink()
    network = TrainedNetwork(HyTIP(tiny_config(*STEP_1)))
    with pytest.raises(InputError, match=f"{re.escape(name)} is missing; get it from the {origin}.*--from_scratch"):
        start_from_pretrained(network, tmp_path / "models", ssim=False, from_scratch=False)
    lines = start_from_pretrained(network, tmp_path / "models", ssim=False, from_scratch=True)
    assert f"--from_scratch: {tmp_path / 'models' / name} is missing" in lines[1] + lines[2] + lines[3]


def test_an_incomplete_spynet_is_refused(tmp_path):
    write_pretrained(tmp_path / "models")
    state = torch.load(tmp_path / "models" / SPYNET, weights_only=True)
    del state["Blocks.3.2.bias"]
    torch.save(state, tmp_path / "models" / SPYNET)
    with pytest.raises(InputError, match="entry Blocks.3.2.bias is missing or has another shape"):
        start_from_pretrained(TrainedNetwork(HyTIP(tiny_config(*STEP_1))), tmp_path / "models", False, False)
