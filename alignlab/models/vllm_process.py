"""A vLLM server that alignlab starts beside the trainer; it sleeps while the policy learns, so that both fit one GPU.

Sleep level 2 frees the server's weights and its KV cache. Before a rollout its weights are allocated again and loaded
from the policy's folder, then its cache, in the order of vLLM's documentation ("Sleep Mode"). The server ends with the
process that started it.
"""

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from alignlab.config.vllm import Vllm
from alignlab.errors import Failure, failure
from alignlab.runtime.http_client import status_of

NAME = "policy"  # of the model that is served
HEALTH_SECONDS = 5.0  # for an answer to that question
POLL = 0.5  # seconds between two questions whether the server has started
END_WITH_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":  # PR_SET_PDEATHSIG: SIGTERM when the trainer ends, even by SIGKILL
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class VLLMProcess:
    """A running server; `url` is its address."""

    def __init__(self, settings: Vllm, folder: Path, dtype: str) -> None:
        self.settings = settings
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [
            *settings.command, str(folder), "--host", "127.0.0.1", "--port", str(port), "--dtype", dtype,
            "--served-model-name", NAME, "--generation-config", "vllm", "--logprobs-mode", "processed_logprobs",
            "--enable-sleep-mode", "--gpu-memory-utilization", str(settings.gpu_memory_utilization),
        ]  # fmt: skip
        if shutil.which(command[0]) is None:
            what = f"{command[0]} is not installed here"
            raise failure("method.vllm.command", what, "install vllm, or use mode=server")
        self.log = folder / "server.log"
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-c", END_WITH_PARENT, *command],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=os.environ | {"VLLM_SERVER_DEV_MODE": "1"},
                start_new_session=True,  # Ctrl-C is for the trainer, which ends the server itself
            )
        atexit.register(self.close)
        self.wait()

    def wait(self) -> None:
        """Wait until the server answers; raises a `Failure` where it ends or takes too long."""
        until = time.monotonic() + self.settings.startup_timeout
        while status_of(f"{self.url}/health", HEALTH_SECONDS, trust_env=False) != 200:
            if (code := self.process.poll()) is not None:
                raise self.failed(f"ended with code {code}")
            if time.monotonic() > until:
                self.close()
                raise self.failed(f"did not start within {self.settings.startup_timeout:g} s")
            time.sleep(POLL)

    def failed(self, what: str) -> Failure:
        """Build the failure of a server that does not start, with the last line that it wrote."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip()[:200] for line in reversed(lines) if line.strip()), "nothing")
        now = "try the command by itself, lower method.vllm.gpu_memory_utilization, or use mode=server"
        return failure("method.vllm.command", f"{self.settings.command[0]} {what}; its last log line: {last}", now)

    def close(self) -> None:
        """End the server and what it started; a server that has ended is left alone."""
        atexit.unregister(self.close)
        if self.process.poll() is not None:
            return
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def free_port() -> int:
    """Return a port of this machine that no one uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
