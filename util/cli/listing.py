"""`--list_models`: the models there are, as a table."""
from collections.abc import Collection
from pathlib import Path

from config.model_file import ModelFile
from models.catalogue import MODELS, ROWS, find_model, rows_of

SIZES = ("parameters", "encode", "decode", "buffer")
HEADS = ("model", "what", *SIZES, "published rate", "weights")


def print_models() -> None:
    """Names for `--model`, sizes, published rates, whether the weights are here, and where those that are not come
    from; what was verified."""
    models = [find_model(name) for name in MODELS]
    _print_table([HEADS, *map(_row, models)], (0, 1, 6, 7))
    print("\nparameters: millions; encode, decode: kMAC per pixel of a P-frame; buffer: what a decoder keeps, in\n"
          "channels of the frame's size; published rate: BD-rate of the paper, less is better")
    print("\nverified here:")
    for model in models:
        print(f"  {model.name}: {model.verified or 'nothing'}")
    print()
    for model in models:
        for text in where_to_get(model):
            print(text)
    for name in ROWS:
        print(f"\nrows of the paper's tables of {name}, --model FILE; to be trained (docs/studies.md)")
        _print_table([("file", *SIZES), *((_shown(row.path), *_sizes(row)) for row in rows_of(name))], (0,))


def _print_table(rows: list[tuple[str, ...]], words: Collection[int]) -> None:
    """Columns of words are aligned to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) if i in words else cell.rjust(width)
                 for i, (cell, width) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip())


def _row(model: ModelFile) -> tuple[str, ...]:
    return model.name, model.paper, *_sizes(model), model.published, weights_text(model)


def _sizes(model: ModelFile) -> tuple[str, ...]:
    return tuple(_number(model.size.get(key), digits) for key, digits in zip(SIZES, (1, 0, 0, 3)))


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _missing(model: ModelFile) -> dict[str, list[Path]]:
    """By metric, the files that are not here."""
    return {metric: [file for file in files if not file.is_file()] for metric, files in model.weights.items()}


def weights_text(model: ModelFile) -> str:
    """`PSNR found, MS-SSIM missing`."""
    words = [f"{metric} {'missing' if files else 'found'}" for metric, files in _missing(model).items()]
    return ", ".join(words) or "none; give --weights FILE"


def where_to_get(model: ModelFile) -> list[str]:
    """A line on the weights of a model that are not here, if there are any."""
    lacking = [_shown(file) for files in _missing(model).values() for file in files]
    return [f"{model.name}: {', '.join(lacking)} from {model.origin}"] if lacking else []


def _shown(path: Path) -> str:
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
