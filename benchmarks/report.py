"""The measurements as Markdown."""
from benchmarks.coding import PARTS

NOT_MEASURED = "not measured"


def markdown(results: dict) -> str:
    """The whole document; what was not asked for is left out."""
    peaks = results["peaks"]
    parts = ["# Benchmark", _machine(results["machine"], results["settings"]), peaks_table(peaks)]
    if results["startup"]:
        parts.append(_startup(results["startup"]))
    if results["ratios"]:
        parts.append(_ratios(results["ratios"]))
    if results["coding"]:
        parts.append(coding_table(results["coding"], peaks))
    if results["training"]:
        parts.append(_training(results["training"], peaks))
    return "\n\n".join(parts) + "\n"


def table(heads: list[str], rows: list[list[object]]) -> str:
    lines = [heads, ["---"] * len(heads), *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(cell: object) -> str:
    if cell is None:
        return NOT_MEASURED
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def _machine(machine: dict, settings: dict) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    gpu = machine["gpu"] or "no GPU"
    return (f"{machine['date']}: {machine['cpu']} ({machine['instruction_set']}), {machine['cores']} cores, "
            f"{machine['memory_GiB']} GiB, {machine['system']}; {gpu}; {versions}; model: {settings['model']}; "
            f"{settings['threads']} threads, medians of up to {settings['repeat']} rounds.\n\n"
            "Files to files in one process: PNG frames to a stream, a stream to PNG frames. Starting Python and "
            "reading weights is not included.")


def _startup(rows: list[dict]) -> str:
    lines = []
    for row in rows:
        seconds, ratio = row["limits"]
        aim = f"<= {seconds} s" if seconds else f"<= {ratio} times" if ratio else ""
        met = (seconds is None or row["seconds"] <= seconds) and (ratio is None or row["ratio"] <= ratio)
        lines.append([row["kind"], f"{row['seconds']:.2f}", f"{row['ratio']:.2f}", aim,
                      "" if not aim else "met" if met else "missed"])
    return ("## Starting\n\nCPU seconds of whole processes, and as multiples of importing PyTorch.\n\n"
            + table(["", "CPU s", "ratio", "aim", ""], lines))


def _ratios(ratios: list[dict | None]) -> str:
    parts = ["## Beside one conditional P-frame in plain float32",
             "Time per frame, file to file, divided by the time of the networks of one P-frame with a full memory, in "
             "float32, contiguous, out of place, measured in turns."]
    for result in ratios:
        if result is None:
            parts.append(f"GPU: {NOT_MEASURED}.")
            continue
        head = (f"{result['device']}, {result['width']}x{result['height']}, {result['frames']} frames, "
                f"{result['threads']} threads: {result['plain_seconds']:.3f} s for the plain P-frame "
                f"({result['rounds']} rounds).")
        parts += [head, table(["", "precision", "s/frame", "ratio", "target", ""],
                               [[r["kind"], r["precision"], f"{r['seconds']:.3f}", f"{r['ratio']:.3f}",
                                 r["target"] and f"<= {r['target']:.2f}",
                                 "" if r["target"] is None else "met" if r["ratio"] <= r["target"] else "missed"]
                                for r in result["rows"]])]
    return "\n\n".join(parts)


def peaks_table(peaks: dict[str, dict | None]) -> str:
    rows = [[device, name, None if rate is None else rate / 1e9]
            for device, rates in peaks.items() for name, rate in (rates or {"all": None}).items()]
    return ("## What the arithmetic allows\n\nMultiply-adds per second of the faster of a large matrix product and a "
            "large convolution.\n\n" + table(["device", "precision", "GMAC/s"], rows))


def coding_table(rows: list[dict], peaks: dict) -> str:
    heads = ["device", "size", "", "precision", "s/frame", *(f"{part} s" for part in PARTS), "limit s",
             "networks at % of peak", "entropy %", "peak GiB", "rounds"]
    lines = []
    for row in rows:
        seconds, rate = row["seconds"], (peaks[row["device"]] or {}).get(row["precision"])
        limit = row["macs"] / rate if rate else None
        parts = seconds["networks"], sum(seconds[part] for part in PARTS)
        lines.append([row["device"], f"{row['width']}x{row['height']}", row["kind"], row["precision"],
                      seconds["total"], *(seconds[part] for part in PARTS), limit,
                      limit and f"{100 * limit / parts[0]:.0f}", f"{100 * seconds['entropy'] / parts[1]:.1f}",
                      row["peak_GiB"], row["rounds"]])
    missing = [] if peaks.get("cuda") else [["cuda", None]]
    lines += [row + [""] * (len(heads) - len(row)) for row in missing]
    return ("## Coding\n\nSeconds per frame of a clip of one I-frame and then P-frames; the limit is its multiply-adds "
            "at the peak rate. `test` is `--test`: estimated bits and PSNR, no files written. On a GPU the parts are "
            "of runs in which nothing overlaps.\n\n" + table(heads, lines))


def _training(rows: list[dict], peaks: dict) -> str:
    lines = [[row["device"], f"{row['step']:.0f}", f"{row['p_frames']:.0f}",
              f"{row['batch']:.0f} x {row['crop']:.0f}x{row['crop']:.0f}", row["steps_per_s"], _efficiency(row, peaks),
              row["peak_GiB"]] for row in rows]
    if not peaks.get("cuda"):
        lines.append(["cuda", None, *[""] * 5])
    return ("## Training\n\nOptimizer steps of the last phase of a step of the schedule, float32; the last columns: "
            "share of the peak rate, and memory.\n\n"
            + table(["device", "step", "P-frames", "batch", "steps/s", "% of peak", "peak GiB"], lines))


def _efficiency(row: dict, peaks: dict) -> str | None:
    rate = (peaks[row["device"]] or {}).get("float32")
    return f"{100 * row['macs'] * row['steps_per_s'] / rate:.0f}" if rate else None
