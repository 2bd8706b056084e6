"""The networks. Importing CompressAI makes PyTorch announce the end of torch.jit, which no user of ours can act on."""
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import compressai.entropy_models
    import compressai.layers  # noqa: F401
