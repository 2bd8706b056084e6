"""One of two processes of a test (test_training_survival.py): runs that are told to stop after each of their steps.

python stopping_processes.py FOLDER RANK PORT...
"""
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402
from training_helpers import options, phase_file  # noqa: E402

from util.errors import InputError  # noqa: E402
from util.training import trainer  # noqa: E402
from util.training.distributed import Team  # noqa: E402
from util.training.main import train  # noqa: E402

STEPS = 3


def main(folder: Path, rank: int, ports: list[str]) -> None:
    """The leader's answers; a whole run; and for each step a run that one of the two is told to stop there, resumed.

    As on a GPU, the host is a step behind, and every other run saves after each step.
    """
    ports = iter(ports)
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1")
    torch.set_num_threads(1)
    trainer.lag_of = lambda device: 1
    whole = options(folder, folder / "configs", train_data=folder / "clips", experiment_name="whole",
                    train_conf=folder / "p.yml")
    os.environ["MASTER_PORT"] = next(ports)
    team = Team("cpu")
    assert team.led(lambda: rank) == 0
    try:
        team.led(lambda: _refuse(rank))
        raise AssertionError("the leader's error must reach everybody")
    except InputError as error:
        assert str(error) == "refused by 0"
    team.leave()

    shared, original = [], Team.share
    Team.share = lambda *args, **kwargs: shared.append(original(*args, **kwargs)) or shared[-1]
    run(whole, next(ports))
    assert not shared[0].find_unused_parameters and shared[0].static_graph
    assert not shared[0].module.network.codec.inter.q_feature.requires_grad
    update = trainer.Trainer.update
    for stop_at in range(1, STEPS + 1):
        calls = []

        def stopped(self, *args, calls=calls, stop_at=stop_at):
            calls.append(1)
            if len(calls) == stop_at and rank == stop_at % 2:
                os.kill(os.getpid(), signal.SIGTERM)
            update(self, *args)
        trainer.Trainer.update = stopped
        stopping = replace(whole, experiment_name=f"stopped_{stop_at}", save_minutes=0 if stop_at % 2 else 15)
        assert run(stopping, next(ports)) is False, f"the stop at step {stop_at} is lost"
        assert len(calls) <= stop_at + 1
        trainer.Trainer.update = update
        assert run(replace(stopping, restore="resume"), next(ports)) is True


def run(run_options, port: str) -> bool:
    os.environ["MASTER_PORT"] = port
    return train(run_options)


def _refuse(rank: int) -> None:
    raise InputError(f"refused by {rank}")


def prepare(folder: Path) -> None:
    """The phase file: batches of one clip, so that one process codes what does not count."""
    phase_file(folder / "p.yml", {"p": {"end_epoch": 1, "stage": "1Pframe", "batch_size": 1,
                                        "loss_on": {"R": "rate", "D": "distortion"}}})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
