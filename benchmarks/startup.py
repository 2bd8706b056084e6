"""How long starting takes: CPU time of whole processes, beside that of importing PyTorch."""
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from util.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
LIMITS = {"--help": (0.3, None), "bad flag": (0.3, None), "encode one frame": (None, 1.5)}
"""What is aimed at: seconds, and times the import of PyTorch."""


def cpu_seconds(words: list[str], status: int) -> float:
    """Of a process and its threads, in user and in system mode.

    Raises:
        InputError: it ends with another exit status; a failure is no measurement.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != status:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(f"{' '.join(words)} ended with exit status {done.returncode}: {last}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def measure_startup(repeat: int, model: list[str]) -> list[dict]:
    """Rows of kind, seconds and ratio to `import torch`: medians over rounds in which all take turns.

    Args:
        model: flags of HyTIP.py that choose the model.
    """
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip")
        clip.mkdir()
        Image.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(clip / "frame_1.png")
        program = [sys.executable, "HyTIP.py"]
        commands = {
            "import torch": [sys.executable, "-c", "import torch"],
            "--help": [*program, "--help"],
            "bad flag": [*program, "--no_such_flag"],
            "encode one frame": [*program, "--compress", *model, "--input", str(clip), "--output",
                                 str(Path(folder, "clip.hyt")), "--device", "cpu", "--threads", "1"],
        }
        rounds = [{kind: cpu_seconds(words, 2 if kind == "bad flag" else 0) for kind, words in commands.items()}
                  for _ in range(repeat + 1)][1:]                   # the first brings files into the system's cache
    seconds = {kind: median(row[kind] for row in rounds) for kind in commands}
    return [{"kind": kind, "seconds": value, "ratio": value / seconds["import torch"],
             "limits": list(LIMITS.get(kind, (None, None)))} for kind, value in seconds.items()]
