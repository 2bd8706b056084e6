"""One training step of the released system: losses, terms, and gradient norms, which tell what is detached."""
import json
from dataclasses import dataclass
from functools import cache

import pytest
import torch

from helpers import ROOT, full_config, seeded_model
from models.entropy.training import no_noise
from models.hytip.codec import HyTIP
from seeded import seeded_video
from util.training.losses import PSNR_SCALE, Distortion, LossExpression
from util.training.phases import Phase
from util.training.stages import ClipCoder, Clips

GOLDEN = {case["case"]: case for case in json.loads((ROOT / "tests/data/golden_training.json").read_text())}

VARIABLE = ("Motion", "Inter")
STEP_1 = ("Motion_Explicit", "Inter_CRC_Explicit")
STEP_6 = ("Motion_Hybrid_B=2.125", "Inter_MCR_Hybrid_B=5")


@dataclass(frozen=True)
class Case:
    """How a golden case was made."""
    configs: tuple[str, str]
    stage: str
    mode: str | None = None
    p_frames: int = 6
    rnn: int | None = None
    rate: str = "rate"
    distortion: str = "distortion"
    through_references: bool = False
    frame_types: tuple[int, ...] = (0, 0, 0, 0, 0)
    frame_weights: tuple[float, ...] = ()


TYPED = {"distortion": "frame_weight*distortion", "frame_types": (0, 1, 0, 2, 1),
         "frame_weights": (1, 1.2, 0.5, 0.9, 1.2)}

CASES = {
    "fullgop variable-rate RNN=0 frame_weight 4P": Case(VARIABLE, "fullgop", p_frames=4, rnn=0, **TYPED),
    "fullgop variable-rate RNN=1 frame_weight 4P": Case(VARIABLE, "fullgop", p_frames=4, rnn=1, **TYPED),
    "2Pframes motion (step 1)": Case(STEP_1, "2Pframes", "motion", rate="m_rate", distortion="warped_distortion"),
    "trainmc 1_0.5_0.25_0.125/4 2P (step 1)": Case(STEP_1, "trainmc", p_frames=2, rnn=0, rate="None",
                                                   distortion="1_0.5_0.25_0.125/4"),
    "1Pframe (step 1)": Case(STEP_1, "1Pframe"),
    "2Pframes residual mc+distortion (step 1)": Case(STEP_1, "2Pframes", "residual",
                                                     distortion="0.5*mc_distortion/0.5*distortion"),
    "fullgop RNN=0 4P (step 1)": Case(STEP_1, "fullgop", p_frames=4, rnn=0),
    "fullgop RNN=1 4P (step 1)": Case(STEP_1, "fullgop", p_frames=4, rnn=1),
    "2Pframes residual (step 6)": Case(STEP_6, "2Pframes", "residual"),
    "fullgop RNN=0 4P (step 6)": Case(STEP_6, "fullgop", p_frames=4, rnn=0),
    "fullgop RNN=1 4P (step 6)": Case(STEP_6, "fullgop", p_frames=4, rnn=1),
    "fullgop RNN=0 --FGOP_Inter_XtRNN 4P (step 6)": Case(STEP_6, "fullgop", p_frames=4, rnn=0,
                                                         through_references=True),
}

assert CASES.keys() == GOLDEN.keys()

@cache
def network(configs):
    model = seeded_model(full_config(*configs)).train()
    for name in ("motion_estimation", "motion", "inter"):
        getattr(model, name).requires_grad_(True)
    return model


SLOW = {"fullgop RNN=0 4P (step 1)", "fullgop RNN=1 4P (step 1)", "fullgop RNN=0 4P (step 6)"}
"""Cases that others nearly contain: of step 1 in two phases, of step 6 with gradients through references."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
                                  for name in CASES])
def test_training_step(name):
    case, golden = CASES[name], GOLDEN[name]
    model = network(case.configs)
    model.zero_grad()
    variable = model.config.variable_rate
    phase = Phase(name="golden", first_epoch=1, last_epoch=1, stage=case.stage, mode=case.mode, rnn=case.rnn,
                  max_p_frames=case.p_frames, batch_size=2, lr=1e-4, rate=LossExpression(case.rate),
                  distortion=LossExpression(case.distortion))
    plan = phase.stage_plan(variable_rate=variable, through_references=case.through_references,
                            frame_types=case.frame_types)
    distortion = Distortion()
    qp = torch.tensor([10, 50]) if variable else 3
    lambdas = distortion.lambdas_of_rates(5)[qp] if variable else distortion.lambda_of_level(5)
    frames = torch.stack([seeded_video(7, 64, 64, salt) for salt in (21, 22)])

    results = ClipCoder(model, plan, distortion)(Clips(frames, qp, no_noise))
    loss = phase.loss(case.frame_weights).value(results, PSNR_SCALE * lambdas).mean()
    loss.backward()

    assert loss.item() == pytest.approx(golden["loss"], rel=1e-4)
    for term, value in golden["terms"].items():
        if term != "loss":
            own = sum(terms[term].mean().item() for terms in results) / len(results)
            assert own == pytest.approx(value, rel=1e-4), term
    for part, root in HyTIP.plain_roots().items():
        if root in golden["grad_norm"]:
            gradients = [p.grad for p in getattr(model, part).parameters() if p.grad is not None]
            norm = sum(g.double().square().sum().item() for g in gradients) ** 0.5
            assert norm == pytest.approx(golden["grad_norm"][root], rel=1e-3), root
