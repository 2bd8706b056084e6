"""Configurations, clips and runs that the training tests share."""
import csv
import socket
import sys
from dataclasses import asdict
from pathlib import Path

import torch
import yaml

from conftest import write_frames
from helpers import INTER_CONFIGS, MOTION_CONFIGS, ROOT, seeded_model, tiny_config
from seeded import seeded_state, seeded_video
from util.training.network import HEAD, TrainedNetwork
from util.training.options import TrainingOptions


def write_tiny_configs(folder: Path) -> Path:
    """Every configuration file of config/ at tiny widths."""
    def write(name: str, config) -> None:
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}
        values = {key: value for key, value in values.items() if value is not None}
        text = yaml.safe_dump({"model_architecture": config.architecture, "model_params": values})
        (folder / f"{name}.yml").write_text(text)

    folder.mkdir(parents=True, exist_ok=True)
    for name in MOTION_CONFIGS:
        write(name, tiny_config(name, "Inter" if name == "Motion" else "Inter_MCR_Explicit").motion)
    for name in INTER_CONFIGS:
        write(name, tiny_config("Motion" if name == "Inter" else "Motion_Explicit", name).inter)
    shared = tiny_config()
    write("Intra", shared.intra)
    write("MENet", shared.motion_estimation)
    return folder


def write_clips(root: Path, count: int = 2, frames: int = 7, side: int = 64) -> Path:
    """Training clips for `--train_dataset folder`."""
    for n in range(count):
        write_frames(root / f"clip_{n}", seeded_video(frames, side, side, 21 + n))
    return root


def seeded_network(config, head: bool = False) -> TrainedNetwork:
    """A network with seeded weights."""
    network = TrainedNetwork(seeded_model(config).train().requires_grad_(True), head)
    if head:
        network.head.load_state_dict(seeded_state(network.head.state_dict(), f"{HEAD}."))
    return network


def options(tmp_path: Path, configs: Path, **changes) -> TrainingOptions:
    """A short run of tiny widths on two clips, from random weights."""
    values = {"cond_motion_coder_conf": configs / "Motion.yml", "residual_coder_conf": configs / "Inter.yml",
              "intra_coder_conf": configs / "Intra.yml", "motion_estimation_conf": configs / "MENet.yml",
              "config_dir": configs, "data": tmp_path / "data", "train_dataset": "folder", "crop_size": 64,
              "results": tmp_path / "results", "pretrained": tmp_path / "none", "from_scratch": True,
              "restore": "load_pretrained", "device": "cpu", "no_sanity": True, **changes}
    return TrainingOptions(**values)


def entries(path: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint."""
    return torch.load(path, weights_only=False)["state_dict"]


def flags(options: TrainingOptions) -> list[str]:
    """The command line that says the same as some options."""
    words = []
    for name, value in asdict(options).items():
        if value is None or value == getattr(TrainingOptions, name, None):
            continue
        words.append("-data" if name == "data" else f"--{name}")
        if value is not True:
            words += [str(entry) for entry in value] if isinstance(value, (tuple, list)) else [str(value)]
    return words


def command(options: TrainingOptions, processes: int = 1) -> list[str]:
    """Start a run in processes of its own."""
    launcher = [sys.executable, str(ROOT / "HyTIP.py")]
    if processes > 1:
        launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}",
                    "--master_addr=127.0.0.1", f"--master_port={free_port()}", str(ROOT / "HyTIP.py")]
    return [*launcher, *flags(options), "--threads", "1"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def curve(results: Path, experiment: str = "HyTIP") -> list[dict[str, str]]:
    """The rows of training.csv, without what depends on time."""
    with (results / experiment / "training.csv").open(newline="") as file:
        return [{key: value for key, value in row.items()
                 if key not in ("seconds", "waited", "images_per_second")} for row in csv.DictReader(file)]


def phase_file(path: Path, phases: dict[str, dict], **defaults) -> Path:
    """A --train_conf file."""
    path.write_text(yaml.safe_dump({"defaults": {"lr": 1e-3, "batch_size": 2, **defaults}, "phases": phases},
                                   sort_keys=False))
    return path
