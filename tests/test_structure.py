"""What the layout of the code promises."""
import ast
import re

from helpers import ROOT


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_models_do_not_reach_back():
    for path in (ROOT / "models").rglob("*.py"):
        reached = {name for name in imports(path) if name.split(".")[0] in {"util", "dataloader", "HyTIP", "tests"}}
        assert reached <= {"util.errors"}, path


def test_networks_contain_no_casts_and_no_devices():
    numeric = {*(ROOT / "models" / "entropy").rglob("*.py"), ROOT / "models" / "layers" / "formats.py",
               *(ROOT / "models").rglob("*initial.py"), ROOT / "models" / "layers" / "block_transform.py"}
    for path in set((ROOT / "models").rglob("*.py")) - numeric:
        for word in (r"\.cuda\(", r"\.float\(", r"\.half\(", r"\.double\(", r"\.to\(torch", "autocast"):
            assert not re.search(word, path.read_text()), (path, word)


def test_the_entry_point_stays_thin():
    assert len((ROOT / "HyTIP.py").read_text().splitlines()) < 60


def test_the_readme_names_every_top_level_entry():
    readme = (ROOT / "README.md").read_text()
    for name in ("HyTIP.py", "models/", "config/", "util/", "dataloader/", "install.sh", "requirements.txt", "tests/",
                 "docs/", "demo/"):
        assert name in readme, name
