"""`--list_models`: the models there are, as a table."""
from pathlib import Path

from config.model_file import ModelFile
from models.catalogue import MODELS, find_model

HEADS = ("model", "what", "parameters", "encode", "decode", "buffer", "weights")


def print_models() -> None:
    """Names for `--model`, sizes, and whether the weights are here."""
    rows = [_row(find_model(name)) for name in MODELS]
    widths = [max(len(row[i]) for row in (HEADS, *rows)) for i in range(len(HEADS) - 1)]
    for row in (HEADS, *rows):
        cells = [cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        print("  ".join([*cells, row[-1]]))
    print("\nparameters: millions; encode, decode: kMAC per pixel of a P-frame; buffer: what a decoder keeps, in\n"
          "channels of the frame's size")


def _row(model: ModelFile) -> tuple[str, ...]:
    sizes = (_number(model.size.get(key), digits) for key, digits in (("parameters", 1), ("encode", 0), ("decode", 0),
                                                                      ("buffer", 3)))
    return model.name, model.paper, *sizes, weights_text(model)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def weights_text(model: ModelFile) -> str:
    """The metrics whose weights are here; which files are not, and where to get them."""
    missing = {metric: [file for file in files if not file.is_file()] for metric, files in model.weights.items()}
    words = [f"{', '.join(metric for metric, files in missing.items() if not files)} found"] \
        if not all(missing.values()) else []
    lacking = [_shown(file) for files in missing.values() for file in files]
    if lacking:
        words.append(f"{', '.join(lacking)} missing, from {model.origin}")
    return "; ".join(words) or "none; give --weights FILE"


def _shown(path: Path) -> str:
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
