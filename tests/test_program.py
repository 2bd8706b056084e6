"""Exit statuses and signals, as shells and job schedulers expect them."""
import contextlib
import os
import signal
import subprocess
import sys

import pytest

from helpers import ROOT
from util.errors import InputError
from util.program import exit_status, wait_patiently

PROGRAM = """
import sys, time
sys.path.insert(0, {root!r})
from util.files import atomic_path
from util.program import exit_status

def run():
    with atomic_path({path!r}) as temporary:
        temporary.write_text("half")
        print("ready", flush=True)
        time.sleep(60)

sys.exit(exit_status("program", run))
"""


def raising(error):
    def run():
        raise error
    return run


@pytest.mark.parametrize("error, status, words", [
    (InputError("no such thing; take another"), 2, "program: error: no such thing; take another\n"),
    (KeyboardInterrupt(), 130, "program: interrupted\n")])
def test_statuses(capsys, error, status, words):
    assert exit_status("program", raising(error)) == status
    assert capsys.readouterr().err == words


@pytest.mark.parametrize("given, expected", [({}, "4000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None),
                                             ({"GOMP_SPINCOUNT": "10000"}, "10000"), ({"KMP_BLOCKTIME": "1"}, None)])
def test_openmp_soon_sleeps_unless_told_otherwise(monkeypatch, given, expected):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    wait_patiently()
    assert os.environ.get("GOMP_SPINCOUNT") == expected


def test_success_and_handlers_are_restored():
    before = signal.getsignal(signal.SIGTERM)
    assert exit_status("program", lambda: None) == 0
    assert signal.getsignal(signal.SIGTERM) == before


def swallowed():
    with contextlib.suppress(BaseException):
        os.kill(os.getpid(), signal.SIGTERM)


def turned_into_an_error():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException:
        raise ImportError("cannot load half of it") from None


@pytest.mark.parametrize("run", [swallowed, turned_into_an_error])
def test_a_signal_counts_whatever_a_library_makes_of_it(capsys, run):
    """In an import or a destructor, say."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert exit_status("program", run) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "program: ended by SIGTERM\n"
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_half_written(tmp_path, number):
    path = tmp_path / "out.bin"
    path.write_text("whole")
    program = subprocess.Popen([sys.executable, "-c", PROGRAM.format(root=str(ROOT), path=str(path))],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(number, signal.SIG_DFL))
    assert program.stdout.readline() == "ready\n" and len(list(tmp_path.iterdir())) == 2
    program.send_signal(number)
    _, err = program.communicate(timeout=60)
    assert program.returncode == 128 + number
    assert err.startswith("program: ") and err.count("\n") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.bin"] and path.read_text() == "whole"


def test_an_ignored_hangup_stays_ignored(tmp_path):
    """`nohup` keeps a run alive."""
    code = PROGRAM.format(root=str(ROOT), path=str(tmp_path / "out.bin")).replace("time.sleep(60)", "time.sleep(1)")
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    program.stdout.readline()
    program.send_signal(signal.SIGHUP)
    assert program.wait(60) == 0 and (tmp_path / "out.bin").read_text() == "half"


def test_a_closed_pipe_is_no_error():
    """`HyTIP.py --help_all | head -1`."""
    code = (f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
            "from util.program import exit_status\n"
            "def run():\n"
            "    for _ in range(100000): print('line')\n"
            "sys.exit(exit_status('program', run))")
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    program.stdout.readline()
    program.stdout.close()
    assert program.stderr.read() == "" and program.wait(60) == 141
