"""Intra codecs."""
