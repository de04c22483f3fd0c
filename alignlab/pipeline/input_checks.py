"""Check before training, and for `dry_run`, what a plan's stages will use: models, rewards, servers of judges.

Only what is on this machine can be checked, so a model of the hub is checked once it is downloaded. A plan for another
machine checks no rewards and no servers, which may be there and not here.
"""

from alignlab.config import extensions
from alignlab.config.by_model import context_of
from alignlab.config.judge import Host
from alignlab.config.reward import singles
from alignlab.config.schema import Config
from alignlab.errors import Failure, Fault, Mistake, failure, mistake
from alignlab.models import references
from alignlab.models.chat_client import ChatClient
from alignlab.models.pretrained import WEIGHTS, cached_snapshot, local_source
from alignlab.pipeline import model_references
from alignlab.pipeline.memory_fit import is_elsewhere
from alignlab.pipeline.model_references import REWARD
from alignlab.pipeline.plan import Plan, Stage
from alignlab.runtime.http_client import Unanswered


def check(plan: Plan) -> None:
    """Raise an error for the first input of an unfinished stage that cannot be used."""
    check_lengths(plan.config)
    stages = [stage for stage in plan.stages if not stage.done]
    if not stages:
        return
    check_models(plan.config)
    if is_elsewhere(plan.config.hardware):
        return
    if any(REWARD in stage.method().needs for stage in stages):
        check_rewards(plan.config, stages)
    for stage in stages:
        judge = getattr(stage.settings, "judge", None)
        if judge and judge.server:
            check_server(judge.server, "judge")


def check_models(config: Config) -> None:
    """Raise a `Mistake` for the first model on this machine whose folder holds no weights."""
    bases = (local_source(model) or cached_snapshot(model) for model in model_references.pretrained_models(config))
    named = (*model_references.named_policies(config), *model_references.named_scorers(config))
    others = ((place, references.find_model(place, name)) for place, name in named if name != references.POCKET)
    for place, folder in (*(("model.path", base) for base in bases if base), *others):
        if folder.is_dir() and not any(file.name.endswith(WEIGHTS) for file in folder.iterdir()):
            what = f"{folder} holds no weights ({', '.join('*' + ending for ending in WEIGHTS)})"
            raise mistake(place, what, "download the model again")


def check_lengths(config: Config) -> None:
    """Raise a `Mistake` where a completion is allowed all the tokens of the base model's context, which sampling needs.

    Without this check, a run would fail when it measures what it has trained.
    """
    context = None if config.model.is_encoder_decoder else context_of(config.model.model_dump())
    lengths = {"method.max_new_tokens": getattr(config.method, "max_new_tokens", None)}
    if config.evaluation.enabled:
        lengths["evaluation.max_new_tokens"] = config.evaluation.max_new_tokens
    for place, length in lengths.items():
        if context and length and length >= context:
            what = f"{length} leaves no room for a prompt in the model's context of {context} tokens"
            raise mistake(place, what, f"use less than {context}")


def check_server(server: Host, place: str) -> None:
    """Raise a `Failure` where a chat model's server cannot be reached, or refuses the key; asks the model nothing."""
    client = ChatClient(server, place)
    try:
        answer = client.client.request("GET", f"{server.url.rstrip('/')}/models")
    except Unanswered as error:
        raise failure(place, f"{server.url} {error}", "start the server, or correct its url") from error
    if answer.status in {401, 403}:
        raise client.failure(answer)


def check_rewards(config: Config, stages: list[Stage]) -> None:
    """Let each kind of reward check its settings; a kind whose models are trained or downloaded later has no check."""
    from alignlab.rewards import Context

    inputs = {need: source.path for stage in stages for need, source in stage.inputs.items()}
    faults: list[Fault] = []
    for place, reward in singles(config.reward):
        module = extensions.load("rewards", reward.kind)
        try:
            if isinstance(reward, Host):
                check_server(reward, place)
            elif hasattr(module, "check"):
                module.check(reward, Context(inputs, config.hardware, place, config.dataset))
        except (Mistake, Failure) as error:
            faults += error.faults
    if faults:
        raise Mistake(faults)
