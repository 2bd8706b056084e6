"""`python demo/make_picture.py`: docs/frame.jpg, a frame of the demo clip, its flow, its mask and its bits.

    evaluate the clip with the small model and --visualize -> one frame of the pictures, on a sheet
"""
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from util.contact_sheet import Picture, Row, contact_sheet, thumbnail  # noqa: E402

FRAME, QP = 2, 42
KEYS = {"source": "", "decoded_flow": "flow", "mask": "", "bits": "viridis"}


def main() -> None:
    """Write docs/frame.jpg."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, ROOT / "HyTIP.py", "--test", "--model", "small", "--input",
                        ROOT / "demo" / "Demo" / "BigBuckBunny", "--frames", str(FRAME), "--QP", str(QP), "--visualize",
                        "--save_dir", folder], check=True)
        pictures = {}
        for kind, key in KEYS.items():
            with Image.open(Path(folder, "visualize", "BigBuckBunny", kind, f"frame_{FRAME}.png")) as image:
                pictures[kind] = thumbnail(Picture(image.convert("RGB").crop((0, 0, 416, 240)), key))
        sheet = contact_sheet(f"Frame {FRAME} of Big Buck Bunny, small model, QP {QP}", [Row("", pictures)], list(KEYS))
        sheet.save(ROOT / "docs" / "frame.jpg", quality=88)


if __name__ == "__main__":
    main()
