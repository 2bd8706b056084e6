"""What the file of a study says (docs/studies.md), checked before anything is done."""
import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dataloader.sequences import select
from models.catalogue import ALIASES, MODELS
from util.comparison.bd_rate import MIN_POINTS
from util.comparison.published import lookup, published
from util.errors import InputError
from util.training.options import RESTORES
from util.yaml_file import read_mapping

ENCODERS = ("x264", "x265", "hm", "vtm")
RELEASED = "released"
"""`weights` of rows that take the model's own files."""

AVERAGE = "Average"


@dataclass(frozen=True, kw_only=True)
class TestPlan:
    """How rows are evaluated. Names and meanings are those of the flags; `color`: --color_transform.

    Attributes:
        videos: instead of data sets, paths below the data; each counts as a data set.
    """
    datasets: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()
    sequences: tuple[str, ...] | None = None
    frames: int = 96
    gop: int = 32
    QP: tuple[int, ...] = (0, 21, 42, 63)
    color: str = "BT601"
    crop: bool = False
    metric: str = "PSNR"


@dataclass(frozen=True, kw_only=True)
class Start:
    """What the first step of a recipe takes its weights from: a file, another row, or a model that is trained first.

    Attributes:
        name: of the experiment of such a model.
    """
    name: str
    weights: Path | None = None
    row: str | None = None
    model: str | None = None
    changes: Mapping[str, Any] | None = None
    recipe: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table.

    Attributes:
        name: of experiments and folders; `label`: in the table.
        model: a name of the catalogue or the path of a model file; None for encoders and for rows only published.
        changes: to the model's parameters.
        recipe: how it is trained; None where it is not.
        restore: starting point of the recipe's first step, instead of its own.
        weights: instead of training: a file, or RELEASED.
        encoder, QP: one of ENCODERS, and its rates.
        repeats: the row that this one is with another seed.
        published: BD-rate in % against the anchor by data set and AVERAGE, as far as known.
    """
    name: str
    label: str = ""
    model: str | None = None
    changes: Mapping[str, Any] | None = None
    recipe: Path | None = None
    restore: str | None = None
    start: Start | None = None
    seed: int = 0
    weights: str | None = None
    encoder: str | None = None
    QP: tuple[int, ...] = ()
    repeats: str | None = None
    published: Mapping[str, float] = field(default_factory=dict)

    @property
    def measured(self) -> bool:
        """Whether there is anything to measure."""
        return self.model is not None or self.encoder is not None


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study. `paper` and `here` map facts to words: what the paper did, and what no run can tell of itself."""
    name: str
    title: str
    source: str
    anchor: str
    test: TestPlan
    rows: Mapping[str, Row]
    paper: Mapping[str, str]
    here: Mapping[str, str]

    def chosen(self, names: list[str] | None) -> list[Row]:
        """The rows of these names, all without; only such as can be measured.

        Raises:
            InputError: there is no such row.
        """
        for name in names or ():
            if name not in self.rows or not self.rows[name].measured:
                raise InputError(f"--rows {name}: the study has no such row to measure; choose from "
                                 f"{', '.join(row.name for row in self.rows.values() if row.measured)}")
        return [row for row in self.rows.values() if row.measured and (not names or row.name in names)]


def read_study(path: str | Path) -> Study:
    """Read and check a study.

    Raises:
        InputError: it cannot be read; a key or value is unknown, missing or impossible.
    """
    path = Path(path)
    content = read_mapping(path, "the keys title, anchor, test and rows")
    _check_keys(path, "the study", content, ("title", "anchor", "test", "rows"),
                ("source", "start", "defaults", "paper", "here"))
    plan = _plan(path, content["test"])
    listed, defaults = content["rows"], content.get("defaults") or {}
    if not isinstance(listed, dict) or not isinstance(defaults, dict):
        raise InputError(f"{path}: rows and defaults must be mappings")
    start = _start(path, "the study", content["start"], "start") if content.get("start") else None
    rows: dict[str, Row] = {}
    for name, settings in listed.items():
        rows[str(name)] = _row(path, str(name), settings or {}, defaults, start, plan, rows)
    for row in rows.values():
        if row.start is not None and row.start.row is not None and row.start.row not in rows:
            raise InputError(f"{path}: row {row.name} starts from row {row.start.row!r}, which is not there")
    anchor = str(content["anchor"])
    if anchor not in rows or not rows[anchor].measured:
        raise InputError(f"{path}: anchor {anchor!r} must be a row that can be measured")
    return Study(name=path.stem, title=str(content["title"]), source=str(content.get("source", "")), anchor=anchor,
                 test=plan, rows=rows, paper=_words(path, content, "paper"), here=_words(path, content, "here"))


def _check_keys(path: Path, where: str, given: Any, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    if not isinstance(given, dict):
        raise InputError(f"{path}: {where} must map keys to values")
    for key in given:
        if key not in required + optional:
            raise InputError(f"{path}: unknown key {key!r} in {where}; allowed are {', '.join(required + optional)}")
    for key in required:
        if key not in given:
            raise InputError(f"{path}: key {key!r} is missing in {where}")


def _words(path: Path, content: dict, key: str) -> dict[str, str]:
    given = content.get(key) or {}
    if not isinstance(given, dict):
        raise InputError(f"{path}: {key} must map facts to words")
    return {str(fact): str(words) for fact, words in given.items()}


def _plan(path: Path, given: Any) -> TestPlan:
    """`test`, with lists as tuples."""
    names = [entry.name for entry in dataclasses.fields(TestPlan)]
    _check_keys(path, "test", given, (), tuple(names))
    if ("datasets" in given) == ("videos" in given):
        raise InputError(f"{path}: test must have datasets, or videos below the data")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    try:
        plan = TestPlan(**values)
        select(list(plan.datasets), list(plan.sequences) if plan.sequences else None)
    except (InputError, TypeError) as error:
        raise InputError(f"{path}: test: {error}") from None
    for key, allowed in (("metric", ("PSNR", "MS-SSIM")), ("color", ("BT601", "BT709")), ("crop", (True, False))):
        if getattr(plan, key) not in allowed:
            raise InputError(f"{path}: test.{key} {getattr(plan, key)!r} must be one of {', '.join(map(str, allowed))}")
    for key in ("frames", "gop"):
        if not _is_count(getattr(plan, key)):
            raise InputError(f"{path}: test.{key} {getattr(plan, key)!r} must be an integer of at least 1")
    _check_rates(path, "test", plan.QP)
    return plan


def _check_rates(path: Path, where: str, rates: Any) -> None:
    if not isinstance(rates, tuple) or len(set(rates)) < MIN_POINTS or not all(
            isinstance(rate, int) and not isinstance(rate, bool) and 0 <= rate <= 63 for rate in rates):
        raise InputError(f"{path}: {where}.QP {rates!r} must be at least {MIN_POINTS} different rates in 0..63, or "
                         "there is no BD-rate")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _model(path: Path, name: str) -> str:
    """A name of the catalogue, or a path as it is seen from here."""
    return name if ALIASES.get(name, name) in MODELS else str(path.parent / name)


def _start(path: Path, where: str, given: Any, name: str) -> Start:
    _check_keys(path, f"start of {where}", given, (), ("weights", "row", "model", "changes", "recipe"))
    if len({"weights", "row", "recipe"} & given.keys()) != 1 or ("recipe" in given) != ("model" in given):
        raise InputError(f"{path}: start of {where} must be weights: FILE, row: NAME, or model and recipe")
    return Start(name=name, row=given.get("row"),
                 weights=path.parent / given["weights"] if "weights" in given else None,
                 model=_model(path, given["model"]) if "model" in given else None, changes=given.get("changes"),
                 recipe=path.parent / given["recipe"] if "recipe" in given else None)


_OF_ROWS = tuple(entry.name for entry in dataclasses.fields(Row) if entry.name != "name")


def _row(path: Path, name: str, settings: Any, defaults: dict, start: Start | None, plan: TestPlan,
         before: Mapping[str, Row]) -> Row:
    where = f"row {name}"
    _check_keys(path, where, settings, (), _OF_ROWS)
    if not re.fullmatch(r"[\w+.-]+", name):
        raise InputError(f"{path}: row {name!r}: a name may hold letters, digits, '+', '.', '-' and '_' only")
    if "repeats" in settings:
        return _repetition(path, name, settings, before)
    if {"weights", "recipe"} <= settings.keys():
        raise InputError(f"{path}: {where} has weights and a recipe; leave one of them out")
    alone = not settings.keys() & {"model", "changes", "recipe", "weights", "encoder"}
    if not ("encoder" in settings or (alone and "published" in settings and "model" not in defaults)):
        settings = {**defaults, **settings}
    if "weights" in settings:
        settings = {key: value for key, value in settings.items() if key not in ("recipe", "restore")}
    if settings.get("restore") not in (None, *RESTORES):
        raise InputError(f"{path}: {where}: restore {settings['restore']!r} is unknown; choose from "
                         f"{', '.join(RESTORES)}")
    kinds = [key for key in ("recipe", "weights", "encoder") if key in settings]
    if len(kinds) != ("model" in settings or "encoder" in settings) or ("encoder" in kinds and "model" in settings):
        raise InputError(f"{path}: {where} must have model and recipe, model and weights, encoder, repeats, or only "
                         "published values")
    seed = settings.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise InputError(f"{path}: {where}: seed {seed!r} must be an integer of at least 0")
    row = Row(name=name, label=str(settings.get("label", name)), seed=seed, restore=settings.get("restore"),
              model=_model(path, str(settings["model"])) if "model" in settings else None,
              changes=settings.get("changes"), weights=_weights(path, settings.get("weights")),
              recipe=path.parent / settings["recipe"] if "recipe" in settings else None,
              start=_start(path, where, settings["start"], f"{name}_start") if settings.get("start") else start,
              encoder=settings.get("encoder"), QP=tuple(settings.get("QP", ())),
              published=_published(path, where, settings.get("published"), plan))
    if row.encoder is not None:
        if row.encoder not in ENCODERS:
            raise InputError(f"{path}: {where}: encoder {row.encoder!r} is unknown; choose from {', '.join(ENCODERS)}")
        _check_rates(path, where, row.QP)
    elif row.QP:
        raise InputError(f"{path}: {where}: QP belongs to encoders; the rates of models stand under test")
    return row


def _weights(path: Path, given: str | None) -> str | None:
    return given if given in (None, RELEASED) else str(path.parent / given)


def _repetition(path: Path, name: str, settings: dict, before: Mapping[str, Row]) -> Row:
    original = before.get(settings["repeats"])
    if not settings.keys() <= {"repeats", "seed", "label"} or original is None or original.recipe is None:
        raise InputError(f"{path}: row {name} repeats {settings['repeats']!r}: that must be a row above that is "
                         "trained, and seed and label are all that may differ")
    if settings.get("seed", 0) == original.seed:
        raise InputError(f"{path}: row {name} repeats {original.name} with its seed, {original.seed}; give another")
    return replace(original, name=name, label=str(settings.get("label", f"{original.label}, other seed")),
                   seed=settings.get("seed", 0), repeats=original.name, published={})


def _published(path: Path, where: str, given: Any, plan: TestPlan) -> dict[str, float]:
    if given is None:
        return {}
    if isinstance(given, str):
        found = lookup(plan.metric, plan.color, given)
        if not found:
            known = dict.fromkeys(row.method for row in published() if row[:2] == (plan.metric, plan.color))
            raise InputError(f"{path}: {where}: published {given!r} is no method of published.tsv for {plan.metric}, "
                             f"{plan.color}; choose from {', '.join(known)}")
        return found
    values = given if isinstance(given, dict) else {AVERAGE: given}
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values.values()):
        raise InputError(f"{path}: {where}: published must be a number, or map data sets to numbers")
    return {str(key): float(value) for key, value in values.items()}
