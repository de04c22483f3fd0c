"""Stop signals before a run begins, inside a finaliser, and while a run ends."""

import os
import signal
import subprocess
import sys
import time

import pytest
from command import config, heed_signals

from alignlab.pipeline.input_checks import check_rewards
from alignlab.runtime import signals
from alignlab.runtime.process_state import restored
from alignlab.runtime.tracking import Guarded
from alignlab.sweeps.optuna_search import open_study


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGHUP, 75)])
def test_a_signal_in_the_first_second_is_a_sentence(number, code):
    source = "import runpy, sys; sys.argv[1:] = ['method=sft', 'dry_run=true']\n"
    source += "import alignlab.config.compose as c; c.check = lambda *a, **k: print('ready', flush=True) or input()\n"
    source += "runpy.run_module('alignlab', run_name='__main__')"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", source], preexec_fn=heed_signals, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        said = process.communicate()[1]
    assert process.returncode == code
    assert said == f"stopped: by {signal.Signals(number).name}; {signals.RESUME}\n"


class Finalised:
    """An object whose finaliser takes long enough for a signal to arrive."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)


def test_a_stop_that_python_drops_in_a_finaliser_is_raised_again(monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)  # a test before may have left another one
    with restored(), pytest.raises(signals.Stopped):
        signals.handle_stop_signals()
        thing = Finalised()
        del thing
        time.sleep(5)
    assert sys.unraisablehook is not signals._repeat_swallowed


def test_an_error_that_a_library_makes_of_a_stop_is_a_stop():
    with restored(), pytest.raises(signals.Stopped), signals.explained_stop():
        signals.request_stop()
        raise RuntimeError("failed to import")
    with restored(), pytest.raises(RuntimeError), signals.explained_stop():
        raise RuntimeError("failed to import")


def stop(*_, **__):
    raise signals.stopped("SIGTERM")


def test_a_stop_in_a_tracker_is_raised_and_no_fault_of_the_tracker():
    with pytest.raises(signals.Stopped):
        Guarded.guard(None, stop)


def test_a_stop_while_a_storage_is_opened_is_raised_and_no_fault_of_the_storage(monkeypatch):
    monkeypatch.setattr("optuna.create_study", stop)
    with pytest.raises(signals.Stopped):
        open_study("sqlite://", "sweep", "maximize")


def test_a_stop_while_rewards_are_checked_is_raised_and_no_mistake(monkeypatch):
    monkeypatch.setattr("alignlab.rewards.function.check", stop)
    with pytest.raises(signals.Stopped):
        check_rewards(config("method=ppo", "reward=function", "reward.function=builtins:len"), [])
