"""util/comparison: BD-rates against an independent computation, refusals, tables, plots and the published data."""
import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.integrate import quad

from util.comparison.__main__ import main
from util.comparison.bd_rate import METHODS, Refused, bd_rate, overlap
from util.comparison.curves import Codec, Point, read_codec
from util.comparison.published import lookup, published, verdict
from util.comparison.tables import compare, latex, markdown
from util.errors import InputError
from util.evaluation.report import FrameResult, write_report


def curve(rates, qualities) -> list[Point]:
    return [Point(rate, quality, 32, 1) for rate, quality in zip(rates, qualities, strict=True)]


# The library's own example: libx265 presets measured with ffmpeg (README of the package bjontegaard).
ANCHOR = curve([9487.76, 4593.60, 2486.44, 1358.24], [40.037, 38.615, 36.845, 34.851])
TEST = curve([9787.80, 4469.00, 2451.52, 1356.24], [40.121, 38.651, 36.970, 34.987])


def pchip_slopes(x, y):
    """Fritsch and Carlson's slopes (SIAM J. Numer. Anal. 17, 1980), with the usual three-point ends."""
    h, delta = np.diff(x), np.diff(y) / np.diff(x)

    def end(h0, h1, d0, d1):
        slope = ((2 * h0 + h1) * d0 - h0 * d1) / (h0 + h1)
        if slope * d0 <= 0:
            return 0.0
        return 3 * d0 if d0 * d1 < 0 and abs(slope) > 3 * abs(d0) else slope

    inner = [(3 * (h[i - 1] + h[i])) / ((2 * h[i] + h[i - 1]) / delta[i - 1] + (h[i] + 2 * h[i - 1]) / delta[i])
             if delta[i - 1] * delta[i] > 0 else 0.0 for i in range(1, len(h))]
    return [end(h[0], h[1], delta[0], delta[1]), *inner, end(h[-1], h[-2], delta[-1], delta[-2])]


def akima_slopes(x, y):
    """Akima's slopes (J. ACM 17, 1970), two secants extrapolated at each end."""
    m = list(np.diff(y) / np.diff(x))
    m = [3 * m[0] - 2 * m[1], 2 * m[0] - m[1], *m, 2 * m[-1] - m[-2], 3 * m[-1] - 2 * m[-2]]
    slopes = []
    for i in range(len(x)):
        left, right = abs(m[i + 1] - m[i]), abs(m[i + 3] - m[i + 2])
        slopes.append((m[i + 1] + m[i + 2]) / 2 if left + right == 0
                      else (right * m[i + 1] + left * m[i + 2]) / (left + right))
    return slopes


def independent_bd_rate(anchor, test, slopes_of):
    """BD-rate by Hermite pieces and numerical quadrature."""
    def log_rate(points):
        points = sorted(points)
        x, y = np.array([p.quality for p in points]), np.log([p.rate for p in points])
        slopes = slopes_of(x, y)

        def value(q):
            i = min(max(int(np.searchsorted(x, q)) - 1, 0), len(x) - 2)
            h = x[i + 1] - x[i]
            t = (q - x[i]) / h
            return ((1 + 2 * t) * (1 - t) ** 2 * y[i] + t * (1 - t) ** 2 * h * slopes[i]
                    + t * t * (3 - 2 * t) * y[i + 1] + t * t * (t - 1) * h * slopes[i + 1])
        return value, x

    (f, x), (g, z) = log_rate(anchor), log_rate(test)
    low, high = max(x[0], z[0]), min(x[-1], z[-1])
    knots = sorted(q for q in [*x, *z] if low < q < high)
    area = quad(lambda q: g(q) - f(q), low, high, points=knots, epsabs=1e-12, limit=200)[0]
    return 100 * (math.exp(area / (high - low)) - 1)


@pytest.mark.parametrize("method, slopes", [("pchip", pchip_slopes), ("akima", akima_slopes)])
def test_the_librarys_example(method, slopes):
    assert bd_rate(ANCHOR, TEST, method) == pytest.approx(independent_bd_rate(ANCHOR, TEST, slopes), abs=1e-6)


def test_the_librarys_example_in_figures():
    """What the library printed in version 1.3.0; the test above confirms both figures by other means."""
    assert [f"{bd_rate(ANCHOR, TEST, method):.4f}" for method in METHODS] == ["-4.4175", "-4.4252"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.05, 2), min_size=3, max_size=8), st.floats(0.3, 3), st.sampled_from(METHODS),
       st.integers(0, 99))
def test_a_constant_factor_is_what_it_is(steps, factor, method, seed):
    quality = 30 + np.cumsum([0, *steps])
    rate = 0.01 * np.exp(np.cumsum(np.random.default_rng(seed).uniform(0.1, 1, len(quality))))
    got = bd_rate(curve(rate, quality), curve(factor * rate, quality), method)
    assert got == pytest.approx(100 * (factor - 1), abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_twenty_percent_less(method):
    saved = [point._replace(rate=0.8 * point.rate) for point in ANCHOR]
    assert f"{bd_rate(ANCHOR, saved, method):.4f}" == "-20.0000"


@pytest.mark.parametrize("rates, qualities, words", [
    ([1, 2, 3], [30, 31, 32], "3 rate points, 4 are needed"),
    ([1, 2, 3, 4], [34, 36, 35.9, 40], "not monotone: 36.0000 at 2.0000 bpp, 35.9000 at 3.0000 bpp"),
    ([1, 2, 2, 4], [34, 36, 37, 40], "not monotone"),
    ([1, 2, 3, 4], [34, 36, math.inf, 40], "without a finite quality"),
    ([1, 2, 3, 4], [34, 36, math.nan, 40], "without a finite quality"),
    ([0, 2, 3, 4], [34, 36, 37, 40], "positive rate"),
    ([1, 2, 3, 4], [50, 51, 52, 53], "overlap in 0 % of their quality range, 50 % are needed"),
    ([1, 2, 3, 4], [38, 39, 40, 45], "overlap in 20 %")])
def test_refusals(rates, qualities, words):
    with pytest.raises(Refused, match=words):
        bd_rate(ANCHOR, curve(rates, qualities))
    with pytest.raises(Refused, match=words):
        bd_rate(curve(rates, qualities), ANCHOR)


def test_the_overlap_asked_for_can_be_changed():
    far = curve([1, 2, 3, 4], [38, 39, 40, 45])
    assert overlap(ANCHOR, far) == pytest.approx((40.037 - 38) / (45 - 34.851))
    assert math.isfinite(bd_rate(ANCHOR, far, min_overlap=0.2))
    with pytest.raises(Refused, match="overlap in 0 %"):
        bd_rate(ANCHOR, curve([1, 2, 3, 4], [50, 51, 52, 53]), min_overlap=0)


def write_codec(root: Path, name: str, factor: float, sequences: dict[str, tuple[float, int]], metric: str = "PSNR",
                bend: str = "") -> list[str]:
    """Result folders of a made-up codec at four rates; `bend` names a sequence whose curve falls."""
    folders = []
    for n in range(4):
        folders.append(str(root / f"{name}-{n}"))
        for sequence, (offset, frames) in sequences.items():
            quality = 30 + 2 * n + offset - (9 if sequence == bend and n == 2 else 0)
            quality = 1 - 10 ** (-quality / 20) if metric == "MS-SSIM" else quality
            rows = [FrameResult(i + 1, quality + (i % 3 - 1) * 1e-3, factor * 0.1 * 2 ** n * (1 + offset / 10))
                    for i in range(frames)]
            write_report(root / f"{name}-{n}" / "report" / f"{sequence}.csv", metric, rows)
    return folders


def test_figures_are_means_over_gops(tmp_path):
    rows = [FrameResult(n, quality, rate) for n, quality, rate in ((1, 30, 4), (2, 32, 2), (3, 40, 8))]
    write_report(tmp_path / "a" / "report" / "BQSquare_BT709_FullSeq.csv", "PSNR", rows)
    codec = read_codec("a", [tmp_path / "a"], gop=2)
    assert codec.curves == {"BQSquare_BT709": [Point((3 + 8) / 2, (31 + 40) / 2, 3, 2)]} and codec.metric == "PSNR"


def test_tables(tmp_path):
    """Sequence, class and overall; refused ones are left out of the means and told."""
    sequences = {"BQSquare": (0, 3), "BlowingBubbles": (1, 3), "FourPeople": (2, 3), "Mine": (0, 3)}
    anchor = read_codec("old", map(Path, write_codec(tmp_path, "old", 1, sequences)), 32)
    test = read_codec("new", map(Path, write_codec(tmp_path, "new", 0.8, {**sequences, "Extra": (0, 3)},
                                                   bend="BlowingBubbles")), 32)
    comparison = compare(anchor, test)
    rows = {(row.label, row.kind): row for row in comparison.rows}
    assert [row.label for row in comparison.rows if row.kind == "class"] == ["HEVC-D", "HEVC-E", "Mine"]
    for key in (("BQSquare", "sequence"), ("HEVC-D", "class"), ("HEVC-D", "curve"), ("Mine", "class"),
                ("Overall", "overall")):
        assert rows[key].values == pytest.approx(dict.fromkeys(METHODS, -20), abs=1e-6), key
    assert rows["HEVC-D", "class"].count == (1, 2) and rows["Overall", "overall"].count == (3, 3)
    assert rows["BlowingBubbles", "sequence"].values == dict.fromkeys(METHODS)
    assert len(comparison.refusals) == 2
    assert "Extra: only one of old and new has it" in comparison.refusals[0]
    assert "BlowingBubbles: new is not monotone" in comparison.refusals[1]
    text = markdown(comparison, "GOP 32.")
    assert "| BQSquare | -20.00 | -20.00 |" in text and "| BlowingBubbles | refused | refused |" in text
    assert "| **HEVC-D**, mean of 1 of 2 | -20.00 | -20.00 |" in text
    assert "- BlowingBubbles: new is not monotone" in text
    tex = latex(comparison, "GOP 32.")
    assert r"\textbf{HEVC-D}, mean of 1 of 2 & $-20.00$ & $-20.00$ \\" in tex and r"BlowingBubbles & -- & -- \\" in tex
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 1


def test_a_class_without_any_accepted_curve(tmp_path):
    folders = [write_codec(tmp_path, name, 1, {"BQSquare": (0, 3)}, bend="BQSquare") for name in "ab"]
    comparison = compare(*(read_codec(name, map(Path, f), 32) for name, f in zip("ab", folders)))
    assert all(row.values == dict.fromkeys(METHODS) for row in comparison.rows)
    assert "Overall**, mean of 0 of 1 | refused" in markdown(comparison, "")


def test_unequal_lengths_are_refused(tmp_path):
    one = read_codec("a", map(Path, write_codec(tmp_path, "a", 1, {"Mine": (0, 3)})), 32)
    two = read_codec("b", map(Path, write_codec(tmp_path, "b", 1, {"Mine": (0, 4)})), 32)
    assert compare(one, two).refusals == ["Mine: a has 3 frames and b 4"]


def test_mixed_up_folders(tmp_path):
    psnr = write_codec(tmp_path, "a", 1, {"Mine": (0, 3)})
    ssim = write_codec(tmp_path, "s", 1, {"Mine": (0, 3)}, "MS-SSIM")
    with pytest.raises(InputError, match="mixes metrics"):
        read_codec("a", map(Path, [psnr[0], ssim[0]]), 32)
    with pytest.raises(InputError, match="compare reports of one metric"):
        compare(read_codec("a", map(Path, psnr), 32), read_codec("s", map(Path, ssim), 32))
    with pytest.raises(InputError, match="holds no reports"):
        read_codec("a", [tmp_path], 32)
    (tmp_path / "bad" / "report").mkdir(parents=True)
    (tmp_path / "bad" / "report" / "x.csv").write_text("frame,PSNR,Rate\r\nframe_1,,0.5\r\n")
    with pytest.raises(InputError, match="no report with a quality"):
        read_codec("bad", [tmp_path / "bad"], 32)
    with pytest.raises(InputError, match="no sequence in common"):
        compare(Codec("a", "PSNR", {"x": ANCHOR}), Codec("b", "PSNR", {"y": TEST}))


@pytest.mark.parametrize("metric", ["PSNR", "MS-SSIM"])
def test_command_line(tmp_path, capsys, metric):
    sequences = {"BQSquare_BT709": (0, 3), "FourPeople_BT709": (1, 3)}
    old, new = (write_codec(tmp_path, name, factor, sequences, metric) for name, factor in (("old", 1), ("new", 0.7)))
    out = tmp_path / "out"
    db = ["--ms_ssim_db"] if metric == "MS-SSIM" else []
    assert main(["--curve", "old", *old, "--curve", "new", *new, "--anchor", "old", "--out", str(out), *db,
                 "--published", "HyTIP"]) == 0
    text = capsys.readouterr().out
    assert "| **Overall**, mean of 2 | -30.00 | -30.00 |" in text
    assert f"| HEVC-D | -30.00 | {lookup(metric, 'BT709', 'HyTIP')['HEVC-D']} |" in text
    label = "MS-SSIM_(dB)" if db else "PSNR"
    names = {path.name for path in out.iterdir()}
    assert names == {f"new_vs_old_{label}.md", f"new_vs_old_{label}.tex", f"HEVC-D_{label}.png", f"HEVC-E_{label}.png"}
    assert (out / f"new_vs_old_{label}.md").read_text() in text
    pixels = np.array(Image.open(out / f"HEVC-D_{label}.png").convert("RGB"))
    assert pixels.shape[0] > 300 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


@pytest.mark.parametrize("flags, words", [
    (["--anchor", "none"], "--anchor none is no --curve"), (["--anchor", "a", "--gop", "0"], "--gop 0 must be"),
    (["--anchor", "a", "--min_overlap", "2"], "--min_overlap 2.0 in 0..1"),
    (["--anchor", "a", "--curve", "a", "x"], "a name of its own"),
    (["--anchor", "a", "--curve", "b"], "at least one folder"),
    (["--anchor", "a", "--curve", "b", "nowhere"], "nowhere holds no reports"),
    (["--anchor", "a", "--published", "XYZ"], "--published XYZ has no row")])
def test_bad_flags(tmp_path, capsys, flags, words):
    folders = write_codec(tmp_path, "a", 1, {"Mine": (0, 3)})
    more = ["--curve", "c", *folders] if "--published" in flags else []
    assert main(["--curve", "a", *folders, *more, "--out", str(tmp_path / "out"), *flags]) == 2
    assert words in capsys.readouterr().err


def test_published_tables():
    """Each published average is the mean of its row, to the rounding of one digit (the chart's row is rounder)."""
    rows = published()
    groups = {row[:3] for row in rows}
    assert len(rows) == 7 * 8 + 6 * 8 + 8 and len(groups) == 14
    for group in groups:
        values = lookup(*group)
        average = values.pop("Average")
        assert len(values) == 7 and np.mean(list(values.values())) == pytest.approx(average, abs=0.11), group
    assert lookup("PSNR", "BT709", "HyTIP")["UVG"] == -22.3 and lookup("PSNR", "BT601", "HyTIP") == {}


def test_the_published_complexity_has_its_columns():
    path = Path(__file__).parents[1] / "util" / "comparison" / "published_complexity.tsv"
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == 5 and all(None not in row and all(row.values()) for row in rows)


def test_verdicts():
    assert verdict(-21.5, -22.3) == "agrees (+0.80)"
    assert verdict(-25.0, -22.3) == "better (-2.70)" and verdict(-20.0, -22.3) == "worse (+2.30)"
    assert verdict(-20.0, -22.3, tolerance=3).startswith("agrees")
