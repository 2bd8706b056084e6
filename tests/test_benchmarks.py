"""The benchmark command: runs to its end, says what it measured and on what; no time is judged here."""
import io
import json
import sys
import time
from contextlib import redirect_stdout

import pytest
import torch
from torch.profiler import record_function

import HyTIP as program
from benchmarks import gpu_day, jobs, overfitting, p_frame
from benchmarks.__main__ import main, parse
from benchmarks.__main__ import measure as measure_elsewhere
from benchmarks.coding import KINDS, PARTS, Bench, Setting
from benchmarks.machine import peak_memory
from benchmarks.networks import ConditionalFrame, Rounding, eager, macs_per_frame
from benchmarks.report import markdown
from benchmarks.spans import SPANS, add_up, spans
from benchmarks.startup import LIMITS, cpu_seconds
from helpers import TINY, TINY_FLAGS, seeded_model, tiny_config
from models.hytip.codec import HyTIP
from seeded import seeded_video
from util.arithmetic import Arithmetic
from util.coding.gop import CodingPlan
from util.errors import InputError
from util.evaluation.complexity import count_macs
from util.spans import each

CPU = torch.device("cpu")
PLAN = CodingPlan(qp=30, intra_qp=30)


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> tuple[dict, str, str]:
    """The results of `--quick`, its Markdown, and what was printed.

    Its jobs run in this process, but for the description of the machine; so do the commands whose start is measured.
    """
    output, printed, measure = tmp_path_factory.mktemp("benchmark") / "quick", io.StringIO(), measure_elsewhere

    def measured(job: str, timeout: float | None = None, **request: object) -> object:
        return measure(job, timeout) if job == "machine" else json.loads(json.dumps(jobs.run({"job": job, **request})))

    def started(words: list[str], status: int) -> float:
        begin = time.process_time()
        assert words[1] == "-c" or run_program(words[2:]) == status
        return time.process_time() - begin + 1e-6

    def run_program(words: list[str]) -> int:
        try:
            return program.main(words)
        except SystemExit as end:
            return end.code
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr("benchmarks.__main__.measure", measured)
        patch.setattr("benchmarks.networks.COUNTED", (64, 64))
        patch.setattr("benchmarks.startup.cpu_seconds", started)
        patch.setattr(torch, "use_deterministic_algorithms", lambda _: None)      # what else jobs set for good
        patch.setattr(torch.backends.cudnn, "benchmark", False)
        assert main(["--quick", "--output", str(output)]) == 0
    text = output.with_suffix(".md").read_text()
    return json.loads(output.with_suffix(".json").read_text()), text, printed.getvalue()[-len(text) - 1:]


def test_processor_time_is_that_of_another_process_which_must_do_as_expected():
    count = "for _ in range(3_000_000): pass"
    busy, idle = (cpu_seconds([sys.executable, "-c", code], 0) for code in (count, "pass"))
    assert busy > idle > 0
    with pytest.raises(InputError, match="ended with exit status 3: no reason"):
        cpu_seconds([sys.executable, "-c", "import sys; print('no reason', file=sys.stderr); sys.exit(3)"], 0)


def test_everything_is_measured(quick):
    results, _, _ = quick
    assert set(results) == {"machine", "settings", "peaks", "startup", "coding", "ratios", "training"}
    assert [row["kind"] for row in results["startup"]] == ["import torch", *LIMITS]
    for row in results["startup"]:
        assert row["seconds"] > 0 and row["ratio"] == row["seconds"] / results["startup"][0]["seconds"]
    rows = [row for row in results["coding"] if row["device"] == "cpu"]
    assert {(row["kind"], row["precision"]) for row in rows} == {(k, p) for k in KINDS for p in ("float32", "bfloat16")}
    for row in rows:
        assert (row["width"], row["height"], row["frames"], row["threads"], row["rounds"]) == (64, 48, 3, 1, 1)
        assert set(row["seconds"]) == {"total", *PARTS} and row["macs"] > 1e6
        assert sum(row["seconds"][part] for part in PARTS) == pytest.approx(row["seconds"]["total"])
        assert row["seconds"]["io"] > 0 and (row["seconds"]["entropy"] > 0) == (row["kind"] != "test")
        assert row["peak_GiB"] is None or 0.05 < row["peak_GiB"] < 20
    ratios = results["ratios"][0]
    assert ratios["device"] == "cpu" and ratios["plain_seconds"] > 0 and len(ratios["rows"]) == 4
    for row in ratios["rows"]:
        assert row["ratio"] == pytest.approx(row["seconds"] / ratios["plain_seconds"], rel=0.9)
        assert row["target"] == {"float32": 0.90, "bfloat16": 0.57}[row["precision"]]
    assert results["training"][0]["step"] == 10 and results["training"][0]["steps_per_s"] > 0
    assert all(rate > 1e8 for rate in results["peaks"]["cpu"].values())


def test_the_machine_is_named(quick):
    machine, settings = quick[0]["machine"], quick[0]["settings"]
    assert machine["cpu"] and machine["instruction_set"] == torch.backends.cpu.get_cpu_capability()
    assert set(machine["versions"]) >= {"python", "torch", "constriction"} and machine["cores"] >= 1
    assert machine["versions"]["torch"] == torch.__version__.split("+")[0] and len(machine["date"]) == 25
    assert settings["quick"] and settings["threads"] == 1


def test_the_tables_say_the_same(quick):
    results, text, printed = quick
    assert printed.strip() == text.strip() == markdown(results).strip()
    for head in ("# Benchmark", "## Starting", "## Beside one conditional P-frame", "## Coding", "## Training"):
        assert head in text
    for table in text.split("\n\n"):
        if table.startswith("|"):
            assert len({line.count("|") for line in table.strip().splitlines()}) == 1
    if not torch.cuda.is_available():
        assert results["machine"]["gpu"] is None and text.count("not measured") == 4


@pytest.mark.parametrize("flags, words", [
    (("--sizes", "416"), "--sizes 416"), (("--sizes", "0x5"), "--sizes 0x5"), (("--repeat", "0"), "--repeat 0"),
    (("--frames", "2"), "--frames 2"), (("--steps", "13"), "--steps 13"), (("--only", "all"), "--only"),
    (("--precisions", "int8"), "--precisions"), (("--", "--QP", "99"), "--QP 99"), (("--", "--oops"), "--oops")])
def test_bad_flags_are_one_line(capsys, flags, words):
    assert main(list(flags)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("benchmarks: error: ") and err.count("\n") == 1 and words in err


def test_flags_of_the_model_are_passed_on():
    assert parse([]).model == ["--untrained"]
    assert parse(["--frames", "4", "--", "--weights", "x", "--QP", "7"]).model == ["--weights", "x", "--QP", "7"]


# What is measured

def test_the_plain_form_computes_the_same():
    model, frames = Arithmetic(CPU).place(seeded_model(tiny_config())), seeded_video(3, 48, 64)[:, None]
    plain = eager(model)
    assert all(not getattr(module, "inplace", False) for module in plain.modules())
    assert any(getattr(module, "inplace", False) for module in model.modules())
    assert all(value.is_contiguous() for value in plain.parameters())
    memories = [None, None]
    with torch.no_grad():
        for n, frame in enumerate(frames):
            coded = [network.code_frame(Rounding(), frame, memory, PLAN.header(n, (48, 64)))
                     for network, memory in zip((model, plain), memories)]
            memories = [c.memory for c in coded]
            torch.testing.assert_close(coded[0].frame, coded[1].frame, rtol=0, atol=1e-3)
    assert ConditionalFrame(plain, list(frames), PLAN).seconds() > 0


@pytest.fixture
def counted_small(monkeypatch):
    """Multiply-adds per pixel are the same at every size without padding."""
    monkeypatch.setattr("benchmarks.networks.COUNTED", (64, 64))
    monkeypatch.setattr("util.evaluation.complexity.SIZE", (64, 64))


def test_multiply_adds_are_those_of_the_complexity_report(counted_small):
    model = HyTIP(tiny_config()).eval().requires_grad_(False)
    size = (64, 64)
    for decode in (False, True):
        macs = count_macs(model, decode)
        three, four = (n * macs_per_frame(model, PLAN, n, size, decode) for n in (3, 4))
        expected = 1e3 * (macs.convolutions + macs.attention) * size[0] * size[1]
        assert four - three == pytest.approx(expected, rel=1e-3)


def test_padding_counts(counted_small):
    model = seeded_model(tiny_config())
    assert macs_per_frame(model, PLAN, 3, (33, 65), False) == macs_per_frame(model, PLAN, 3, (33, 70), False)
    assert macs_per_frame(model, PLAN, 3, (65, 65), False) > macs_per_frame(model, PLAN, 3, (64, 65), False)


def test_variants_that_the_device_lacks_are_left_out(monkeypatch):
    monkeypatch.setattr("util.arithmetic.is_supported", lambda dtype, device: dtype != torch.float16)
    setting = Setting(width=32, height=32, frames=3, device="cpu", precisions=("float32", "float16"), threads=1,
                      repeat=3, budget=0.0, model=("--untrained", *map(str, TINY_FLAGS)))
    with Bench(setting) as bench:
        assert list(bench.codecs) == ["float32"]
        assert list(bench.rounds()) == [0]                          # no time for a second one
        split = bench.split("encode", "float32")
    assert set(split) == {"total", *PARTS} and not bench.frames.exists()


def test_peak_memory_is_that_of_the_block():
    with peak_memory(CPU) as large:
        torch.zeros(100_000_000)
    with peak_memory(CPU) as small:
        torch.zeros(1000)
    if large.GiB is not None:
        assert 0.3 < large.GiB - small.GiB < 0.6


def test_spans_are_added_up_by_name():
    def slow(items):
        for item in items:
            time.sleep(0.01)
            yield item
    with spans(CPU) as seconds:
        assert list(each(slow([1, 2, 3]), "io")) == [1, 2, 3]
        for _ in range(2):
            with record_function("entropy"):
                torch.zeros(10) + 1
            with record_function("another"):
                time.sleep(0.01)
    assert set(seconds) == set(SPANS) and seconds["io"] >= 0.03
    assert 0 < seconds["entropy"] < 0.02 and seconds["checksum"] == 0


def test_what_a_gpu_is_waited_for_is_not_the_span_s():
    events = [("cudaStreamSynchronize", 0, 90), ("transfer", 100, 200), ("aten::copy_", 110, 190),
              ("cudaMemcpyAsync", 120, 150), ("cudaStreamSynchronize", 150, 180), ("cudaStreamSynchronize", 205, 300),
              ("io", 300, 310)]
    assert add_up(events) == {"entropy": 0, "transfer": pytest.approx(40e-6), "checksum": 0, "io": pytest.approx(1e-5)}


def test_a_p_frame_is_measured():
    row = p_frame.measure(str(TINY / "dcvc-hem.yml"), (60, 50), 1)
    assert row["wall"] > 0 and row["cpu"] > 0 and (row["peak"] is None or row["peak"] >= row["before"] > 0.1)


def test_codecs_learn_a_clip_from_equal_starts():
    clip = overfitting.moving_clip(2, 64, 64)
    assert not torch.equal(clip[0], clip[1]) and torch.equal(clip[0][:, 2:, 3:], clip[1][:, :-2, :-3])
    base, joined = (overfitting.learn(overfitting.fresh(name, 0), clip, 3, 1e-3) for name in ("dcvc-hem", "st-xct"))
    assert base[0] == pytest.approx(joined[0], rel=1e-5)           # new places are identities
    assert base[-1][0] < base[0][0] and joined[-1][0] < joined[0][0]


# A first day on a GPU

@pytest.mark.slow
def test_a_gpu_day_is_one_command(tmp_path, capsys, monkeypatch):
    """On the CPU: every measurement ends in the one file, or says there why not; what it costs is bounded."""
    asked = []

    def measured(job, timeout, **request):
        asked.append((job, request))
        assert 0 < timeout <= gpu_day.LIMIT
        if request.get("variants") == ["compile"]:
            raise InputError("measuring variants took more than 300 s")
        return jobs.run({"job": job, **request})
    arguments = parse(["--gpu-day", "--quick", "--output", str(tmp_path / "day")])
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    gpu_day.run(arguments, measured, device="cpu")
    results, text = json.loads((tmp_path / "day.json").read_text()), (tmp_path / "day.md").read_text()
    assert capsys.readouterr().out.strip().endswith(text.strip())          # here the trainer tells of itself before
    assert {row["precision"] for row in results["coding"]} >= {"float32", "bfloat16"}
    measured = {(row["variant"], row["precision"]): row for row in results["variants"]}
    assert measured["eager", "float32"]["seconds"] > 0 and measured["contiguous", "float32"]["start_seconds"] > 0
    assert "failed" in measured["graphs", "bfloat16"], "a CPU has no graphs"
    assert [(row["amp"], row["tf32"]) for row in results["training"]] == [("off", "on"), ("bfloat16", "on"),
                                                                         ("off", "off")]
    assert len(results["missing"]) == 2 and "took more than 300 s" in text and results["minutes"] < gpu_day.MINUTES
    monkeypatch.setattr(gpu_day, "MINUTES", 0.0)
    late = gpu_day.run(arguments, measured, device="cpu")
    assert len(late["missing"]) == len(asked) and late["missing"][0]["why"] == "no time was left"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_day_needs_a_gpu(capsys):
    assert main(["--gpu-day"]) == 2
    assert "--gpu-day: no CUDA device is available" in capsys.readouterr().err
