"""Output that nobody reads, that does not fit, or that a terminal cannot show; users without a home."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import ROOT

import alignlab
from alignlab.errors import Mistake
from alignlab.runtime.files import cache_root, ensure_home
from alignlab.runtime.terminal import wrapped

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from alignlab.runtime.terminal import make_streams_robust
make_streams_robust()
for number in range(20_000):
    print("line", number, "ü 水")
print("end", file=sys.__stderr__)  # which some libraries use
"""


def script(shell: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """Run the script in a shell; `$S` stands for it, and its exit code is the shell's."""
    variables = os.environ | environment | {"P": sys.executable, "C": SCRIPT, "R": str(ROOT)}
    return subprocess.run(["bash", "-c", shell.replace("$S", '"$P" -c "$C" "$R"')], capture_output=True, env=variables)


def test_a_pipe_that_is_closed_ends_nothing():
    done = script("$S | head -1; exit ${PIPESTATUS[0]}", PYTHONIOENCODING="utf-8")
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, "line 0 ü 水\n", b"end\n")
    done = script("$S 2>&1 >/dev/null | true; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_the_output_is_reported_once():
    done = script("$S >/dev/full")
    assert done.returncode == 0
    assert done.stderr == b"standard output cannot be written (No space left on device); the command continues\nend\n"
    assert script("$S 2>/dev/full >/dev/null").returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_characters_that_a_terminal_does_not_have_are_escaped(encoding):
    done = script("$S", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"end\n")
    assert done.stdout.startswith(b"line 0 \\xfc \\u6c34" if encoding == "ascii" else b"line 0 \xfc \\u6c34")


def test_closed_streams_are_none_and_stay_so():
    assert script("$S >&- 2>&-").returncode == 0


def test_an_unbuffered_stream_stays_so():
    """The two streams of a container's log stand in the order in which they were written."""
    ordered = "; print(1); print(2, file=sys.stderr); print(3)"
    code = SCRIPT.partition("for number")[0].rstrip() + ordered
    command = [sys.executable, "-u", "-c", code, str(ROOT)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.stdout == "1\n2\n3\n"


def test_a_line_is_wrapped_between_words_under_its_own_indentation():
    assert wrapped("  test: of 840 rows", 12) == ["  test: of", "    840 rows"]
    assert wrapped("  base   reuse   /a/long-path/that/has-no-blanks", 20) == [
        "  base   reuse",
        "    /a/long-path/that/has-no-blanks",
    ]
    assert wrapped("", 80) == [""]


def test_a_user_without_a_home_is_asked_for_a_cache(monkeypatch, tmp_path):
    for name in ("HOME", "ALIGNLAB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: (_ for _ in ()).throw(KeyError("no such user")))
    with pytest.raises(Mistake, match="ALIGNLAB_CACHE: is not set, and this user has no home folder; set it"):
        cache_root()
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    monkeypatch.setenv("USER", "")
    monkeypatch.delenv("USER")
    ensure_home()  # libraries ask for both
    assert (Path.home(), os.environ["USER"]) == (tmp_path, str(os.getuid()))


NAMES = [
    "a b",
    "a,b",
    "a=b",
    "a[b",
    "a]b",
    "it's",
    'q"q',
    "a#b",
    "a:b",
    "ü",
    "a(b",
    "${x}",
    "a\\b",
    "-a",
    "~a",
    " a",
    "%a",
]


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_file_may_have_any_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(f"{name}.yaml").write_text("# @package _global_\nseed: 7\n")
    assert alignlab.compose(f"experiment={name}.yaml", "method=sft").seed == 7


def test_settings_of_a_stage_that_a_method_does_not_have():
    with pytest.raises(Mistake, match=r"^stages\.sft: method=sft has no stage sft; .*: write method\.max_steps=…$"):
        alignlab.compose("method=sft", "stages.sft.max_steps=2")
    with pytest.raises(Mistake, match=r"^stages\.sfd: method=dpo has no stage sfd; it has sft$"):
        alignlab.compose("method=dpo", "stages.sfd.max_steps=2")
