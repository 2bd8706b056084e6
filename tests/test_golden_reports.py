"""The command line against reports of the released one, on synthetic sequences."""
import csv
import json
import shlex
from pathlib import Path

import pytest

CASES = sorted(path.parent for path in (Path(__file__).parent / "data" / "golden_cli").glob("*/command"))


def read_report(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def assert_report(actual: Path, expected: Path) -> None:
    assert b"\r\n" in actual.read_bytes()
    rows, golden = read_report(actual), read_report(expected)
    assert rows[0] == golden[0]
    assert len(rows) == len(golden)
    quality_error = 1e-5 if "MS-SSIM" in golden[0] else 1e-3
    for row, want in zip(rows[1:], golden[1:]):
        assert row[0] == want[0]
        for label, value, reference in zip(golden[0][1:], row[1:], want[1:]):
            if reference == "0":                                   # an I-frame's parts: the integer
                assert value == "0"
            elif "PSNR" in label or "SSIM" in label:
                assert float(value) == pytest.approx(float(reference), abs=quality_error)
            else:
                assert float(value) == pytest.approx(float(reference), rel=1e-4)


def assert_summary(actual: Path, expected: Path) -> None:
    """Character by character but for the last digit of a figure."""
    lines, golden = actual.read_text().splitlines(), expected.read_text().splitlines()
    assert actual.read_bytes().endswith(b"\n") and b"\r" not in actual.read_bytes()
    assert len(lines) == len(golden)
    for line, want in zip(lines, golden):
        assert line[:17] == want[:17] and len(line) == len(want)
        if "=" in want or "Sequence_Name" in want:
            assert line == want
        else:
            figures = [float(word) for word in line[17:].split()]
            assert figures == pytest.approx([float(word) for word in want[17:].split()], rel=1e-4, abs=1.01e-4)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_report(case, hytip, golden_root, full_weights, tmp_path):
    words = shlex.split((case / "command").read_text().replace("ROOT", str(golden_root)).replace("OUT", str(tmp_path)))
    status, out, err = hytip(*words[2:], "--weights", full_weights, "--device", "cpu", "--threads", 1)
    assert (status, err) == (0, "")
    reports = {path.name for path in (tmp_path / "report").iterdir()}
    assert reports == {path.name for path in case.glob("*.csv")}
    summary, = case.glob("brief_summary*.txt")
    # A value within 1e-6 of a rounding tie turns on CPUs without AVX-512: what follows it then is pinned as well.
    for expected in [case, *case.glob("turned")]:
        try:
            for name in reports:
                assert_report(tmp_path / "report" / name, expected / name)
            assert_summary(tmp_path / summary.name, expected / summary.name)
            break
        except AssertionError:
            if expected.name == "turned" or not (case / "turned").is_dir():
                raise
    record = json.loads((tmp_path / summary.with_suffix(".json").name).read_text())
    assert record["arithmetic"]["threads"] == 1 and len(record["weights"]["sha256"]) == 64
