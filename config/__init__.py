"""Configuration files of the four networks, and the dataclasses that read them."""
from config.loader import load_config
from config.schema import InterConfig, IntraConfig, ModelConfig, MotionConfig, MotionEstimationConfig

__all__ = ["InterConfig", "IntraConfig", "ModelConfig", "MotionConfig", "MotionEstimationConfig", "load_config"]
