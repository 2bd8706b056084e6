"""The models of this repository by name (`--model`): which configurations and weights belong together."""
from dataclasses import dataclass
from pathlib import Path

from util.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class ShippedModel:
    """Attributes:
        configs: folder of Motion.yml, Inter.yml, Intra.yml and MENet.yml.
        weights: folder of its weights.
        metrics: what there are weights for.
    """
    configs: Path
    weights: Path
    metrics: tuple[str, ...]

    def config_files(self) -> dict[str, Path]:
        """The file of each network, by the flag that replaces it."""
        return {flag: self.configs / f"{stem}.yml" for flag, stem in CONFIG_FLAGS.items()}

    def weight_file(self, ssim: bool = False) -> Path:
        """Its weights for PSNR or MS-SSIM.

        Raises:
            InputError: it was never trained for MS-SSIM.
        """
        metric = "MS-SSIM" if ssim else "PSNR"
        if metric not in self.metrics:
            raise InputError(f"--ssim: there are no {metric} weights for {self.configs.name}; use --model full, or "
                             "name a file with --weights")
        return self.weights / f"{metric}-RGB.pth.tar"


CONFIG_FLAGS = {"cond_motion_coder_conf": "Motion", "residual_coder_conf": "Inter", "intra_coder_conf": "Intra",
                "motion_estimation_conf": "MENet"}
"""Flag of each network's configuration -> stem of its file."""

MODELS = {"full": ShippedModel(REPOSITORY / "config", REPOSITORY / "models", ("PSNR", "MS-SSIM")),
          "small": ShippedModel(REPOSITORY / "config" / "small", REPOSITORY / "models" / "small", ("PSNR",))}
"""`full` is the paper's, whose weights its authors hand out; `small` comes with this repository, trained by it."""
