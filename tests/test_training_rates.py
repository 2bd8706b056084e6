"""`--rates_from`: a variable-rate model moves to other lambdas."""
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_helpers import entries, options, seeded_network, write_clips, write_tiny_configs

from helpers import tiny_config
from models.codec import FrameHeader
from models.entropy.coder import Estimator
from models.hytip.codec import HyTIP
from models.hytip.memory import HybridMemory as Memory
from seeded import seeded_video
from util.errors import InputError
from util.training.main import train
from util.training.rates import move_rates, moved

RANGE = (0.001, 0.02)


def shifted(rows: float) -> tuple[float, float]:
    """The range that begins at this row of RANGE and is as wide."""
    factor = (RANGE[1] / RANGE[0]) ** (rows / 63)
    return RANGE[0] * factor, RANGE[1] * factor


@given(st.floats(-7, -2), st.floats(0.1, 4), st.floats(-7, -2), st.floats(0.1, 4), st.floats(-1.5, 1.5))
def test_a_power_of_lambda_stays_that_power(start, width, new_start, new_width, power):
    before, after = ((math.exp(low), math.exp(low + wide)) for low, wide in ((start, width), (new_start, new_width)))

    def gains(ends, rows):
        return torch.exp(power * torch.linspace(*(math.log(end) for end in ends), rows)).view(-1, 1, 1, 1)

    expected = gains(after, 64)
    assert torch.allclose(moved(gains(before, 64), before, after), expected, rtol=1e-3)
    assert torch.allclose(moved(gains(before, 2), before, after, 64), expected, rtol=1e-3)


def test_rows_move_and_the_ends_go_on():
    table = torch.rand(64, 5, 1, 1) + 0.5
    assert torch.allclose(moved(table, RANGE, RANGE), table)
    result = moved(table, RANGE, shifted(-21))
    assert torch.allclose(result[21:], table[:43])
    slope = (table[63] / table[0]) ** (1 / 63)
    assert torch.allclose(result[:21], torch.stack([table[0] * slope ** (n - 21) for n in range(21)]))
    assert torch.allclose(moved(table, RANGE, shifted(7))[:57], table[7:])


def test_frames_of_the_same_lambda_stay_the_same():
    """Of both kinds, which is to say that no table was forgotten."""
    network = seeded_network(tiny_config()).eval()
    for name, table in network.entries():
        if ".q_" in name.replace("mv_", "") and len(table) > 1:           # a row per rate: let them differ
            table.data.copy_(torch.linspace(0.8, 1.3, len(table)).view(-1, 1, 1, 1).expand_as(table))
    reference, frame = seeded_video(2, 64, 64, 4).split(1)

    def code(qp):
        intra = network.codec.intra(Estimator(), reference, (64, 64), qp)
        header = FrameHeader(False, qp, (64, 64))
        return intra, network.codec.code_frame(Estimator(), frame, Memory(reference), header).frame

    with torch.no_grad():
        before, other = code(40), code(19)
        move_rates(network, RANGE, shifted(21))
        after = code(19)
    for old, wrong, new in zip(before, other, after, strict=True):
        assert torch.allclose(old, new, atol=1e-4) and not torch.allclose(wrong, new, atol=1e-2)


def test_what_cannot_move():
    network = seeded_network(tiny_config())
    for ends in ((0.02, 0.001), (0.0, 0.1), (0.01, 0.01)):
        with pytest.raises(InputError, match="in ascending order"):
            move_rates(network, ends, RANGE)
    dict(network.entries())["Residual.q_recon"].data[3] = 0
    with pytest.raises(InputError, match="Residual.q_recon has gains that are not above 0"):
        move_rates(network, RANGE, RANGE)
    with pytest.raises(InputError, match="has a single rate"):
        move_rates(seeded_network(tiny_config("Motion_Explicit", "Inter_CRC_Explicit")), RANGE, RANGE)


def test_a_run_that_moves(tmp_path):
    """The step's first weights are the moved ones; without lambdas in the phase there is nothing to move to."""
    configs = write_tiny_configs(tmp_path / "configs")
    write_clips(tmp_path / "data", frames=2, side=32)
    network = seeded_network(tiny_config())
    folder = tmp_path / "results" / "before" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(network.layout(epoch=1), folder / "epoch=1.pth.tar")
    conf = tmp_path / "phases.yml"
    phase = "end_epoch: 1, lr: 1.0e-9, stage: 1Pframe, batch_size: 2, loss_on: {R: rate, D: distortion}"
    conf.write_text(f"phases: {{only: {{{phase}, lambdas: [{shifted(21)[0]}, {shifted(21)[1]}]}}}}")
    run = options(tmp_path, configs, train_conf=conf, restore="same", restore_exp_key="before", rates_from=RANGE,
                  crop_size=32)
    train(run)
    move_rates(network, RANGE, shifted(21))
    expected = dict(network.entries())
    found = entries(tmp_path / "results" / "HyTIP" / "checkpoints" / "epoch=1.pth.tar")
    for name in HyTIP.for_training().rate_tables:
        root, rest = name.split(".", 1)
        assert torch.allclose(found[f"{root}.module.net.{rest}"], expected[name], atol=1e-6), name
    conf.write_text(f"phases: {{only: {{{phase}}}}}")
    with pytest.raises(InputError, match="needs two `lambdas` of its own"):
        train(options(tmp_path, configs, train_conf=conf, restore="same", restore_exp_key="before", rates_from=RANGE,
                      experiment_name="other", crop_size=32))
