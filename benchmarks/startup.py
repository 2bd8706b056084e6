"""How long starting takes: CPU time of whole processes, beside that of importing PyTorch."""
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
LIMITS = {"--help": (0.3, None), "bad flag": (0.3, None), "encode one frame": (None, 1.5)}
"""What is aimed at: seconds, and times the import of PyTorch."""


def cpu_seconds(words: list[str]) -> float:
    """Of a process and its threads, in user and in system mode; whatever its exit status."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
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
        for words in commands.values():
            cpu_seconds(words)                                      # files into the cache of the system
        rounds = [{kind: cpu_seconds(words) for kind, words in commands.items()} for _ in range(repeat)]
    seconds = {kind: median(row[kind] for row in rounds) for kind in commands}
    return [{"kind": kind, "seconds": value, "ratio": value / seconds["import torch"],
             "limits": list(LIMITS.get(kind, (None, None)))} for kind, value in seconds.items()]
