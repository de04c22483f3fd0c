"""A client of vLLM's server: token ids in, token ids and their log-probabilities out.

An error that retries do not mend stops the run with one sentence.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from alignlab.config.vllm import Vllm
from alignlab.errors import Failure, failure
from alignlab.runtime.http_client import HTTPClient, Unanswered
from alignlab.runtime.signals import RESUME

DEV_MODE = "start it with VLLM_SERVER_DEV_MODE=1, see docs/vllm.md"


class SampledTokens(NamedTuple):
    """A completion as the server samples it: its token ids, and the log-probability of each."""

    tokens: list[int]
    logps: list[float]


class VLLMClient:
    """A client of one server, used by several threads at once; after a failure no request is retried any more."""

    def __init__(self, settings: Vllm, url: str) -> None:
        self.url = url.rstrip("/")
        # No proxy on the way to a server that this process has started.
        self.client = HTTPClient(settings, settings.concurrency, trust_env=settings.mode == "server")
        self.settings = settings

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
            tokens, logps = choice["token_ids"], choice["logprobs"]["token_logprobs"]
            read = choice.get("prompt_token_ids")
        except (LookupError, TypeError, AttributeError):
            tokens = logps = read = None
        if not (are_ids(tokens) and are_numbers(logps)):
            now = "use a vLLM that knows return_token_ids (0.10.2 or later)"
            raise failure("method.vllm", f"{self.url} answers without token_ids or logprobs", now)
        if read is not None and read != list(body["prompt"]):
            raise failure("method.vllm", f"{self.url} read other tokens than the prompt's", "do not truncate prompts")
        if not 0 < len(tokens) == len(logps) <= body["max_tokens"]:
            what = f"{self.url} gives {len(tokens)} tokens and {len(logps)} log-probabilities for a limit of "
            raise failure("method.vllm", f"{what}{body['max_tokens']}", "check the server's version")
        return SampledTokens(tokens, [float(logp) for logp in logps])

    def request(self, verb: str, path: str, body: Any = None, missing: str = "check the address", now: str = "") -> Any:
        """Send a request until it is answered; return the JSON of the answer, None for an empty one.

        `missing` is the remedy where the server does not know the path, `now` where it fails at all attempts.
        """
        try:
            answer = self.client.send(verb, f"{self.url}{path}", body)
        except Unanswered as error:
            raise self.failed(str(error), now or f"start it, then {RESUME}") from None
        if answer.status >= 300:
            what = f"answers {path} with {answer.status}: {answer.excerpt()}"
            raise self.failed(what, missing if answer.status == 404 else "check what it expects")
        try:
            return answer.json() if answer.body else None
        except ValueError:
            raise self.failed(f"answers with no JSON: {answer.excerpt()}", "check the address") from None

    def failed(self, what: str, now: str) -> Failure:
        """Build the failure that stops the run, and all requests with it."""
        self.client.stop.set()
        return failure("method.vllm.url", f"{self.url} {what}", now)


def are_ids(value: Any) -> bool:
    """Return whether a value is a list of token ids."""
    return isinstance(value, list) and all(type(each) is int and 0 <= each < 2**31 for each in value)


def are_numbers(value: Any) -> bool:
    """Return whether a value is a list of finite numbers."""
    return isinstance(value, list) and all(type(each) in (int, float) and abs(each) < 1e30 for each in value)


def entries(answer: Any, name: str) -> Sequence[Mapping[str, Any]]:
    """Return a list of an answer; none where it has none."""
    listed = answer.get(name) if isinstance(answer, Mapping) else None
    return listed if isinstance(listed, list) else []
