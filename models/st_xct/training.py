"""What training must know of ST-XCT: where its weights start."""
from models.codec import Pretrained
from models.hem.training import TRAINING as BASE


def video(name: str) -> tuple[str, ...]:
    """Entries of DCVC-HEM's file for P-frames, which holds three networks; those that are absent in one do not fit."""
    if name.startswith("optic_flow."):
        return (name.replace("optic_flow", "motion_estimation", 1),)
    return f"motion.{name}", f"inter.{name}"


def pretrained(ssim: bool) -> tuple[Pretrained, ...]:
    """DCVC-HEM's weights: new transformers are identities, so that training starts at its quality."""
    metric, origin = "ssim" if ssim else "psnr", "the DCVC-HEM release of github.com/microsoft/DCVC"
    return (Pretrained(f"acmmm2022_image_{metric}.pth.tar", lambda name: (f"intra.{name}",), "intra", origin),
            Pretrained(f"acmmm2022_video_{metric}.pth.tar", video, None, origin))


TRAINING = BASE._replace(pretrained=pretrained)
"""From nothing, 2D convolutions start as DCVC-HEM's; 3D ones and norms as PyTorch makes them, temperatures at 1, and
the last convolution of each half of a block at zero."""
