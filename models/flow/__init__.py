"""Motion estimation."""
