"""How fast this machine codes and trains, beside what its arithmetic would allow: python -m benchmarks."""
