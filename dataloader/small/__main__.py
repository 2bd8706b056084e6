"""`python -m dataloader.small`: see build.py."""
import sys

from dataloader.small.build import build, parser
from util.program import exit_status

if __name__ == "__main__":
    sys.exit(exit_status("small", lambda: build(parser().parse_args())))
