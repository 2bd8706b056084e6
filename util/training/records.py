"""What a run leaves to look at: a progress bar, CSV files and TensorBoard. Nothing needs an account.

    results/{experiment}/training.csv     a row per epoch: means of loss, terms and gradient norm, seconds in all and
                                          waiting for the loader, images per second, GB of the GPU at most
                         validation.csv   a row per epoch, sequence and QP
                         tensorboard/     scalars of steps and epochs, images at validation
"""
import csv
import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from util.files import atomic_path
from util.training.checkpoints import Progress

Row = Mapping[str, str | int | float]

STEP_INTERVAL = 20
"""Optimizer steps between two points of the step curves."""


class CsvLog:
    """A CSV file that grows by rows and can forget the rows of epochs that are trained again."""

    def __init__(self, path: Path, columns: tuple[str, ...]):
        self.path, self.columns = path, columns

    def rewind(self, epoch: int) -> None:
        """Forget rows of this epoch and later ones."""
        rows = []
        if self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file)
                        if (row.get("epoch") or "").isdigit() and int(row["epoch"]) < epoch]
        with atomic_path(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def append(self, row: Row) -> None:
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns, restval="", extrasaction="ignore").writerow(row)


TRAINING_COLUMNS = ("epoch", "phase", "updates", "samples", "skipped", "seconds", "lr", "loss", "m_rate", "r_rate",
                    "rate", "warped_distortion", "mc_distortion", "distortion", "motion_mse",
                    "feature_frame_distortion", *(f"mc_distortion{i}" for i in range(4)), "i_rate", "flow_distortion",
                    "flow_roughness", "gradient_norm", "waited", "images_per_second", "gpu_memory")
VALIDATION_COLUMNS = ("epoch", "phase", "sequence", "QP", "loss", "rate", "quality")


class Records:
    """The files of one experiment; only the leading process has any.

    Args:
        folder: of the experiment.
        first_epoch, updates: where the run goes on; later records are forgotten.
    """

    def __init__(self, folder: Path, first_epoch: int, updates: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.training = CsvLog(folder / "training.csv", TRAINING_COLUMNS)
        self.validation = CsvLog(folder / "validation.csv", VALIDATION_COLUMNS)
        for log in (self.training, self.validation):
            log.rewind(first_epoch)
        self.board = _board(folder / "tensorboard", updates)

    def step(self, progress: Progress, values: Mapping[str, float]) -> None:
        """Points of the step curves, now and then."""
        if self.board is not None and progress.updates % STEP_INTERVAL == 0:
            self._scalars("step", values, progress.updates)

    def epoch(self, progress: Progress, lr: float, means: Mapping[str, float], frames: int, memory: float | None
              ) -> None:
        """One finished epoch.

        Args:
            frames: of each clip.
            memory: most that was in use on the GPU, in GB.
        """
        speed = progress.samples * frames / progress.seconds if progress.seconds else 0.0
        self.training.append({"epoch": progress.epoch, "phase": progress.phase, "updates": progress.updates,
                              "samples": progress.samples, "skipped": progress.skipped,
                              "seconds": round(progress.seconds, 2), "lr": lr, **means,
                              "waited": round(progress.waited, 2), "images_per_second": round(speed, 2),
                              "gpu_memory": "" if memory is None else round(memory, 2)})
        self._scalars("epoch", {**means, "lr": lr, "skipped": progress.skipped, "waited": progress.waited,
                                "images_per_second": speed, **({} if memory is None else {"gpu_memory": memory})},
                      progress.updates)

    def validated(self, progress: Progress, rows: list[Row], loss: float, pictures: Mapping[str, Tensor]) -> None:
        """One validation. Pictures are 3 H W in [0, 1]."""
        for row in rows:
            self.validation.append({"epoch": progress.epoch, "phase": progress.phase, **row})
        self._scalars("validation", {"loss": loss}, progress.updates)
        for qp in sorted({row["QP"] for row in rows}):
            for name in ("rate", "quality"):
                values = [row[name] for row in rows if row["QP"] == qp]
                self._scalars(f"validation/QP{qp}", {name: sum(values) / len(values)}, progress.updates)
        if self.board is not None:
            for name, picture in pictures.items():
                self.board.add_image(f"validation/{name}", picture, progress.updates)
            self.board.flush()

    def close(self) -> None:
        if self.board is not None:
            self.board.close()

    def _scalars(self, group: str, values: Mapping[str, float], at: int) -> None:
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(f"{group}/{name}", value, at)


def _board(folder: Path, updates: int):
    """The TensorBoard writer, or None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        tqdm.write("TensorBoard is not installed (pip install tensorboard): curves are in the CSV files only")
        return None
    return SummaryWriter(str(folder), purge_step=updates + 1 if updates else None)


def progress_text(means: Mapping[str, float], ssim: bool) -> str:
    """Loss, rate and quality of the epoch so far."""
    parts = [f"loss {means['loss']:.4g}"] if "loss" in means else []
    rate = means.get("rate", means.get("m_rate", means.get("i_rate")))
    if rate is not None:
        parts.append(f"{rate:.4f} bpp")
    error = means.get("distortion", means.get("warped_distortion", means.get("mc_distortion0")))
    if error is not None and error > 0 and not ssim:
        parts.append(f"PSNR {-10 * math.log10(error):.2f}")
    elif error is not None and ssim:
        parts.append(f"MS-SSIM {1 - error * 32 * math.sqrt(2):.4f}")
    return ", ".join(parts)
