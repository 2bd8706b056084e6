"""The words that flags take, told without importing what implements them: so the command line answers at once."""

PRECISIONS = ("float32", "bfloat16", "float16")
"""Number formats of `--precision`; float64 is that of portable streams."""

FRAME_TYPES = 3
"""Types of P-frames that a plan can tell apart; a codec of fewer takes the others as type 0."""

METRIC_NAMES = ("PSNR", "MS-SSIM", "PSNR-YUV")

MATRICES = ("BT601", "BT709")
RANGES = ("limited", "full")
RAW_FORMATS = ("400", "420", "422", "444", "rgb", "gbr")
"""Planes of raw video."""

CLIP_SETS = ("Vimeo-90k", "BVI-DVC", "folder")
"""What training clips are read from."""

MAX_PIXELS = 4096 * 2304
"""Largest frame, padded to multiples of 64, that a decoder accepts unless told otherwise."""
