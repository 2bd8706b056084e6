"""Amounts as people write them on the command line: 300k, 2MB, 1s."""
import argparse
import re

FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


def bit_rate(text: str) -> float:
    """`300k`, `1.5M`, `300000`: bits per second.

    Raises:
        argparse.ArgumentTypeError: it is none, or not above 0.
    """
    return _amount(text, r"(?:bit/s|bps|b)?", "bit rate", "300k or 1.5M (bits per second)")


def bit_rates(text: str) -> list[float]:
    """`150k,300k,600k`; errors as of `bit_rate`, and where one comes twice."""
    rates = [bit_rate(word) for word in text.split(",")]
    if len(set(rates)) < len(rates):
        raise argparse.ArgumentTypeError(f"{text} names a rate twice; give each once")
    return rates


def byte_size(text: str) -> float:
    """`2MB`, `800k`, `1.5MiB`: bytes. Errors as of `bit_rate`."""
    return _amount(text, r"B?", "size", "2MB or 800kB (bytes; MiB is 1048576)")


def seconds(text: str) -> float:
    """`1s`, `0.5`, `500ms`. Errors as of `bit_rate`."""
    if match := re.fullmatch(r"(.*)ms", text.strip()):
        return seconds(match[1]) / 1000
    return _amount(text, r"s?", "time", "1s or 500ms; at least the time of a frame", factors=False)


def decibels(text: str) -> float:
    """`38`, `38.5dB`. Errors as of `bit_rate`."""
    return _amount(text, r"(?:dB)?", "PSNR", "38 (dB)", factors=False)


def said(amount: float, factors: str = " kM") -> str:
    """`300k`, `1.25M`: what the functions above read."""
    for factor in reversed(factors.strip()):
        if amount >= FACTORS[factor.lower()]:
            return f"{amount / FACTORS[factor.lower()]:.6g}{factor}"
    return f"{amount:.6g}"


def _amount(text: str, unit: str, what: str, example: str, factors: bool = True) -> float:
    factor = "([kmg]i?)?" if factors else "()"
    match = re.fullmatch(rf"(\d+\.?\d*|\.\d+)\s*{factor}{unit}", text.strip(), re.IGNORECASE)
    amount = float(match[1]) * FACTORS[(match[2] or "").lower()] if match else 0
    if amount <= 0:
        raise argparse.ArgumentTypeError(f"{text} is no {what}; give more than 0, such as {example}")
    return amount
