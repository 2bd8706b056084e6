"""The README: short, its commands are ones that the program takes, its links lead somewhere."""
import re
import shlex

import pytest

from helpers import ROOT
from models.catalogue import MODELS, find_model
from util.cli.arguments import parse_arguments

README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^python HyTIP\.py ([^#\n]+)", README, re.MULTILINE)


def test_it_is_short():
    assert len(README.splitlines()) <= 120


def test_there_are_commands_of_every_kind():
    assert {command.split()[0] for command in COMMANDS} >= {"encode", "decode", "eval", "compare", "train"}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    parse_arguments(shlex.split(command))


@pytest.mark.parametrize("document", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


def test_files_that_it_names_are_there():
    """Paths in code: folders and files of the repository."""
    for path in re.findall(r"`((?:models|config|train_cfg|docs|util|demo|dataloader)/[\w/.]+)`", README):
        assert (ROOT / path).exists() or path.endswith(".pth.tar"), path


def test_the_table_of_models_is_that_of_the_catalogue():
    for name in MODELS:
        model = find_model(name)
        size = model.size
        row, = re.findall(rf"^\| `{name}`.*$", README, re.MULTILINE)
        assert f"| {size['parameters']:.1f} M | {size['encode']:.0f} / {size['decode']:.0f} | {size['buffer']} |" in row
        assert name == "st-xct-depthwise" or f"| {model.published} |".replace("|  |", "| |") in row, row
