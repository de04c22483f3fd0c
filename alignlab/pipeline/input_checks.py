"""Check before training, and for `dry_run`, what a plan's stages will use: models, rewards, servers of judges.

Only what is on this machine can be checked, so a model of the hub is checked once it is downloaded. A plan for another
machine checks no rewards and no servers, which may be there and not here.
"""

from alignlab.config import extensions
from alignlab.config.reward import singles
from alignlab.config.schema import Config
from alignlab.errors import Explained, Fault, Mistake
from alignlab.models import references, weight_files
from alignlab.models.chat_client import ChatClient
from alignlab.pipeline import model_references
from alignlab.pipeline.memory_fit import is_elsewhere
from alignlab.pipeline.model_references import REWARD
from alignlab.pipeline.plan import Plan, Stage


def check(plan: Plan) -> None:
    """Raise an error for the first input of an unfinished stage that cannot be used."""
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
            ChatClient(judge.server, "judge").check()


def check_models(config: Config) -> None:
    """Check the template and the weights of starting models, and the weights of the models that only score."""
    from alignlab.models import pretrained

    for model in model_references.pretrained_models(config):
        pretrained.check(model)
    for place, name in (*model_references.named_policies(config), *model_references.named_scorers(config)):
        if name != references.POCKET and (folder := references.find_model(place, name)).exists():
            weight_files.check(place, folder)


def check_rewards(config: Config, stages: list[Stage]) -> None:
    """Let each kind of reward check its settings; a kind whose models are trained or downloaded later has no check."""
    from alignlab.rewards import Context

    inputs = {need: source.path for stage in stages for need, source in stage.inputs.items()}
    faults: list[Fault] = []
    for place, reward in singles(config.reward):
        module = extensions.load("rewards", reward.kind)
        if hasattr(module, "check"):
            try:
                module.check(reward, Context(inputs, config.hardware, place, config.dataset))
            except Explained as error:
                faults += error.faults
    if faults:
        raise Mistake(faults)
