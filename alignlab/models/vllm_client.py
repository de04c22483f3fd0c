"""A client of vLLM's server: token ids in, token ids and their log-probabilities out.

Requests that may succeed later (timeouts, failed connections, the statuses of `TRANSIENT`, 5xx) are retried with a
doubled wait each time. Any other error stops the run with one sentence.
"""

import os
from collections.abc import Mapping, Sequence
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.config.vllm import Vllm
from alignlab.errors import Failure, failure
from alignlab.models.chat_client import TRANSIENT
from alignlab.runtime.signals import RESUME

if TYPE_CHECKING:
    import httpx

DEV_MODE = "start it with VLLM_SERVER_DEV_MODE=1, see docs/vllm.md"


class SampledTokens(NamedTuple):
    """A completion as the server samples it: its token ids, and the log-probability of each."""

    tokens: list[int]
    logps: list[float]


class VLLMClient:
    """A client of one server, used by several threads at once; after a failure no request is retried any more."""

    def __init__(self, settings: Vllm, url: str) -> None:
        import httpx

        key = os.environ.get(settings.key_env, "") if settings.key_env else ""
        self.settings, self.url, self.stop = settings, url.rstrip("/"), Event()
        self.client = httpx.Client(
            base_url=self.url,
            timeout=settings.timeout,
            limits=httpx.Limits(max_connections=settings.concurrency),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            trust_env=settings.mode == "server",  # no proxy on the way to a server of this process
        )

    def model(self) -> str:
        """Return the name of the model that is served; raises a `Failure` where it is another one."""
        served = [str(each.get("id")) for each in entries(self.request("GET", "/v1/models"), "data")]
        name = self.settings.model or next(iter(served), None)
        if name is None or name not in served:
            what = f"{self.url} serves {', '.join(served) or 'no model'}, and not {name}"
            raise failure("method.vllm.model", what, "give the name of a model that is served, or null")
        return name

    def reload_weights(self, folder: str, now: str) -> None:
        """Make the server load the weights of a folder, and forget what it cached of earlier ones.

        `now` is the remedy where it cannot.
        """
        body = {"method": "reload_weights", "kwargs": {"weights_path": folder}}
        self.request("POST", "/collective_rpc", body, missing=DEV_MODE, now=now)
        self.request("POST", "/reset_prefix_cache", missing=DEV_MODE)

    def sleep(self) -> None:
        """Make the server free its weights and its cache."""
        self.request("POST", "/sleep?level=2", missing=DEV_MODE)

    def wake_up(self, part: str) -> None:
        """Make the server allocate its `weights`, or its `kv_cache`; it does nothing while it is awake."""
        self.request("POST", f"/wake_up?tags={part}", missing=DEV_MODE)

    def complete(self, body: Mapping[str, Any]) -> SampledTokens:
        """Sample one completion of token ids; raises a `Failure` where the answer does not fit the request."""
        answer = self.request("POST", "/v1/completions", body)
        try:
            choice = answer["choices"][0]
            tokens, logps = list(choice["token_ids"]), list(choice["logprobs"]["token_logprobs"])
            read = choice.get("prompt_token_ids")
        except (LookupError, TypeError, AttributeError):
            now = "use a vLLM that knows return_token_ids (0.10.2 or later)"
            raise failure("method.vllm", f"{self.url} answers without token_ids or logprobs", now) from None
        if read is not None and list(read) != list(body["prompt"]):
            raise failure("method.vllm", f"{self.url} read other tokens than the prompt's", "do not truncate prompts")
        if not 0 < len(tokens) == len(logps) <= body["max_tokens"]:
            what = f"{self.url} gives {len(tokens)} tokens and {len(logps)} log-probabilities for a limit of "
            raise failure("method.vllm", f"{what}{body['max_tokens']}", "check the server's version")
        return SampledTokens([int(token) for token in tokens], [float(logp) for logp in logps])

    def request(self, verb: str, path: str, body: Any = None, missing: str = "check the address", now: str = "") -> Any:
        """Send a request until it is answered; return the JSON of the answer, None for an empty one.

        `missing` is the remedy where the server does not know the path, `now` where it fails at all attempts.
        """
        import httpx

        for number in range(self.settings.retries + 1):
            try:
                answer = self.client.request(verb, path, json=body)
            except httpx.TimeoutException:
                problem = f"gives no answer within {self.settings.timeout:g} s"
            except httpx.HTTPError as error:
                problem = f"cannot be reached ({type(error).__name__})"
            else:
                if answer.status_code < 400:
                    return self.parsed(answer)
                problem = f"answers {path} with {answer.status_code}: {answer.text[:200]!r}"
                if answer.status_code not in TRANSIENT and answer.status_code < 500:
                    raise self.failed(problem, missing if answer.status_code == 404 else "check what it expects")
            last = number == self.settings.retries
            if last or self.stop.wait(self.settings.backoff * 2**number):
                break
        tries = f"{number + 1} {'time' if number == 0 else 'times'}"
        raise self.failed(f"{problem} (tried {tries})", now or f"start it, then {RESUME}")

    def parsed(self, answer: "httpx.Response") -> Any:
        """Return the JSON of an answer."""
        try:
            return answer.json() if answer.content else None
        except ValueError:
            raise self.failed(f"answers with no JSON: {answer.text[:120]!r}", "check the address") from None

    def failed(self, what: str, now: str) -> Failure:
        """Build the failure that stops the run, and all requests with it."""
        self.stop.set()
        return failure("method.vllm.url", f"{self.url} {what}", now)


def entries(answer: Any, name: str) -> Sequence[Mapping[str, Any]]:
    """Return a list of an answer; none where it has none."""
    listed = answer.get(name) if isinstance(answer, Mapping) else None
    return listed if isinstance(listed, list) else []
