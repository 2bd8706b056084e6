"""The command line as people meet it: verbs, help, docs/flags.md, and nothing loaded before it is needed."""
import json
import subprocess
import sys

import pytest

from config.model_file import ModelFile
from helpers import ROOT, TINY_FLAGS
from models.catalogue import MODELS
from util.choices import CLIP_SETS, METRIC_NAMES, PRECISIONS, RANGES, RAW_FORMATS
from util.cli.arguments import build_parser, parse_arguments
from util.cli.groups import all_groups
from util.cli.help import markdown
from util.cli.listing import weights_text, where_to_get
from util.cli.verbs import VERBS

SLOW = ("torchvision", "torch._dynamo", "torch._inductor", "scipy", "matplotlib", "compressai", "pandas", "tensorboard",
        "torch.utils.tensorboard", "torch.utils.flop_counter", "bjontegaard", "sympy")
"""What coding and training have no need of before it is asked for."""


def loaded(*commands: tuple, status: int = 0) -> list[set[str]]:
    """Modules in memory after each command; one process runs them all."""
    code = (f"import json, sys; sys.path.insert(0, {str(ROOT)!r}); import HyTIP\n"
            f"for argv in {[[str(word) for word in argv] for argv in commands]!r}:\n"
            "    try: status = HyTIP.main(argv)\n"
            "    except SystemExit as end: status = end.code\n"
            "    print('\\n' + json.dumps([status, sorted(sys.modules)]), file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    told = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("[")]
    assert [ended for ended, _ in told] == [status] * len(commands), done.stderr
    return [set(modules) for _, modules in told]


@pytest.mark.parametrize("status, commands", [
    (0, [["--help"], ["encode", "--help"], ["--help_all"], ["models"]]),
    (2, [["--unheard_of"], ["--QP", "64", "--test"], []])])
def test_help_and_bad_flags_load_no_numbers(status, commands):
    for argv, modules in zip(commands, loaded(*commands, status=status), strict=True):
        assert not modules & {"torch", "numpy", "av", "PIL", "tqdm", *SLOW}, argv


def test_coding_and_training_load_nothing_slow(weights, tmp_path):
    base = (*TINY_FLAGS, "--weights", weights, "--device", "cpu", "--threads", 1)
    clip = ("--input", ROOT / "demo" / "Demo" / "BigBuckBunny", "--frames", 1)
    stream = tmp_path / "clip.hyt"
    commands = (("--compress", *base, *clip, "--output", stream),
                ("--decompress", *base, "--input", stream, "--output", tmp_path / "decoded"),
                ("--test", *base, *clip, "--save_dir", tmp_path / "results"),
                ("--train_conf", ROOT / "train_cfg" / "train_VariableRate.yml", *TINY_FLAGS, "--dry_run"))
    for argv, modules in zip(commands, loaded(*commands), strict=True):
        assert "torch" in modules and not modules & {*SLOW, "av"}, argv[0]      # PNGs need no FFmpeg


def test_the_words_that_flags_take_are_those_of_what_they_choose():
    from dataloader.clips import DATASETS
    from dataloader.raw import PLANE_ORDERS
    from util.color import CHROMA
    from util.evaluation.metrics import METRICS
    assert tuple(DATASETS) == CLIP_SETS
    assert (*METRICS, "PSNR-YUV") == METRIC_NAMES
    assert set(RAW_FORMATS) == {*CHROMA, *PLANE_ORDERS}
    assert RANGES == ("limited", "full") and PRECISIONS[0] == "float32"


@pytest.mark.parametrize("words, flags", [
    (["encode", "a.mp4", "b.hyt", "--QP", "3"], ["--compress", "--input", "a.mp4", "--output", "b.hyt", "--QP", "3"]),
    (["encode", "-", "-"], ["--compress", "--input", "-", "--output", "-"]),
    (["decode", "b.hyt", "c.mkv"], ["--decompress", "--input", "b.hyt", "--output", "c.mkv"]),
    (["eval", "a.mp4", "--QP", "3", "4"], ["--test", "--input", "a.mp4", "--QP", "3", "4"]),
    (["eval", "--test_dataset", "UVG"], ["--test", "--test_dataset", "UVG"]),
    (["train", "train_cfg/schedule.yml"], ["--schedule", "train_cfg/schedule.yml"]),
    (["train", "train_cfg/Add_CTM.yml", "--restore", "CTM"], ["--train_conf", "train_cfg/Add_CTM.yml", "--restore",
                                                             "CTM"]),
])
def test_verbs_stand_for_flags(words, flags, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert parse_arguments(words) == parse_arguments(flags)


@pytest.mark.parametrize("words", [["encode", "a.mp4"], ["decode"], ["eval", "a", "b"], ["train"],
                                   ["encode", "--QP", "3", "a.mp4", "b.hyt"]])
def test_a_verb_says_what_it_takes(hytip, words):
    status, out, err = hytip(*words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"{words[0]} takes {' '.join(VERBS[words[0]].usage)}" in err and VERBS[words[0]].example in err


def test_models_are_listed_with_what_is_here(hytip, monkeypatch, tmp_path):
    status, out, _ = hytip("models")
    lines = out.splitlines()
    assert status == 0 and [line.split()[0] for line in lines[1:1 + len(MODELS)]] == list(MODELS)
    small = [line for line in lines if line.startswith("small")]
    assert len(small) == 2 and all(line.endswith("PSNR found") for line in small)
    missing = ModelFile(name="x", path=tmp_path / "x.yml", codec="hytip", model_params={}, origin="the moon",
                        weights={"PSNR": (tmp_path / "x.pth.tar",)})
    monkeypatch.chdir(tmp_path)
    assert weights_text(missing) == "PSNR missing" and where_to_get(missing) == ["x: x.pth.tar from the moon"]
    (tmp_path / "x.pth.tar").touch()
    assert weights_text(missing) == "PSNR found" and not where_to_get(missing)


def test_a_word_that_is_no_verb_is_told_the_verbs(hytip):
    status, _, err = hytip("compres", "a.mp4")
    assert status == 2 and "compres" in err and all(verb in err for verb in VERBS), err


def test_flags_md_is_made_of_the_declarations():
    assert (ROOT / "docs" / "flags.md").read_text() == markdown(), "run: python -m util.cli.help > docs/flags.md"


def test_every_flag_says_what_it_does_and_is_in_the_whole_help(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--help_all"])
    whole = capsys.readouterr().out
    for group in all_groups():
        for flag in group.flags:
            assert flag.options["help"] and flag.names[-1] in whole, flag.names
            assert set(flag.tasks) <= set(VERBS), flag.names
    assert len(build_parser()._actions) == sum(len(group.flags) for group in all_groups())


def test_help_is_short_and_a_verbs_help_is_about_the_verb(capsys):
    texts = {}
    for argv in (["--help"], ["encode", "--help"], ["--compress", "-h"], ["train", "--help"]):
        with pytest.raises(SystemExit) as end:
            parse_arguments(argv)
        assert end.value.code == 0
        texts[tuple(argv)] = capsys.readouterr().out
    assert len(texts["--help",].splitlines()) < 60 and all(verb in texts["--help",] for verb in VERBS)
    encode, train = texts["encode", "--help"], texts["train", "--help"]
    assert texts["--compress", "-h"] == encode
    assert "--verify" in encode and "--verify" not in train
    assert "--batch_size" in train and "--batch_size" not in encode
