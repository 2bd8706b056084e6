"""Verbs, for people: `HyTIP.py encode in.mp4 out.hyt --QP 42`. Each stands for flags."""
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from util.errors import InputError


@dataclass(frozen=True)
class Verb:
    """Attributes:
        usage: the words after it; in brackets what may be left out.
        help: one line.
        flags: what it stands for, given these words.
        example: a command that works.
    """
    usage: tuple[str, ...]
    help: str
    flags: Callable[..., list[str]]
    example: str

    @property
    def needed(self) -> int:
        return sum(not word.startswith("[") for word in self.usage)


def _training(recipe: str) -> list[str]:
    """A recipe has steps, the file of one step has phases."""
    path = Path(recipe)
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    step = re.search(r"^[\"']?phases[\"']?:", text, re.MULTILINE)
    return ["--train_conf" if step else "--schedule", recipe]


VERBS = {
    "encode": Verb(("INPUT", "OUTPUT"), "compress a video (a file, a folder of PNGs, - for a pipe) into a stream",
                   lambda source, stream: ["--compress", "--input", source, "--output", stream],
                   "encode clip.mp4 clip.hyt --model small --QP 42"),
    "decode": Verb(("INPUT", "OUTPUT"), "decompress a stream into a video or a folder of PNGs",
                   lambda stream, video: ["--decompress", "--input", stream, "--output", video],
                   "decode clip.hyt decoded.mkv --model small"),
    "eval": Verb(("[INPUT]",), "rate and quality of a video, or of data sets (--test_dataset), in reports",
                 lambda source=None: ["--test", *([] if source is None else ["--input", source])],
                 "eval clip.mp4 --model small --QP 0 21 42 63"),
    "compare": Verb(("A", "B"), "quality of video B beside A: PSNR, PSNR-YUV, MS-SSIM, VMAF where there is one",
                    lambda a, b: ["--compare", a, b], "compare source.mp4 decoded.mkv"),
    "train": Verb(("RECIPE",), "train a model: all steps of a recipe, or one; a recipe goes on where it was stopped",
                  _training,
                  "train train_cfg/small/schedule.yml -data ROOT"),
    "models": Verb((), "the models there are, their size and where their weights come from",
                   lambda: ["--list_models"], "models"),
}


def expand(argv: list[str]) -> list[str]:
    """Flags instead of the verb at the front; without one, the words as they are.

    Raises:
        InputError: no such verb, too few words after it, or too many.
    """
    if not argv or argv[0].startswith("-"):
        return argv
    if argv[0] not in VERBS:
        raise InputError(f"{argv[0]} is no verb; choose from {', '.join(VERBS)}, or see --help")
    verb, words = VERBS[argv[0]], []
    for word in argv[1:]:
        if word.startswith("-") and word != "-":
            break
        words.append(word)
    if not verb.needed <= len(words) <= len(verb.usage):
        wanted = " ".join(verb.usage) or "no further words"
        raise InputError(f"{argv[0]} takes {wanted}, then flags; for example: HyTIP.py {verb.example}")
    return [*verb.flags(*words), *argv[1 + len(words):]]
