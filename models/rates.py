"""How many rates there are, told without importing a network."""

RATES = 64
"""QPs of every codec lie in 0..RATES - 1, 0 being the lowest quality. What they mean the codec says."""
