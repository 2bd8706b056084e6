"""Configuration files, and how they are read into dataclasses."""
from config.loader import load_config

__all__ = ["load_config"]
