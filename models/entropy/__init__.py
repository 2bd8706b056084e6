"""Probability models of the latents, and the coders that the networks call with them."""
