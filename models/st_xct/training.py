"""What training must know of ST-XCT: where its weights start, from nothing and from those of DCVC-HEM."""
from models.hem import training as hem

TRAINING = hem.TRAINING._replace(pretrained=hem.released, rules={**hem.TRAINING.rules, "base": lambda name: (name,)})
"""New transformers are identities, so weights of DCVC-HEM are all that is needed to start at its quality.

From nothing, 2D convolutions start as DCVC-HEM's; 3D ones and norms as PyTorch makes them, temperatures at 1, and the
last convolution of each half of a block at zero.
"""
