"""Find settings of different groups that are incompatible, and paths that do not exist."""

from collections.abc import Iterator

from alignlab.config.evaluation import Suite, Toxicity
from alignlab.config.method_protocol import load_method
from alignlab.config.reward import singles
from alignlab.config.schema import Config
from alignlab.errors import Fault

PUBLISHED = {  # Detoxify's classifiers under their names on the hub
    "original": "unitary/toxic-bert",
    "unbiased": "unitary/unbiased-toxic-roberta",
    "multilingual": "unitary/multilingual-toxic-xlm-roberta",
}


def contradictions(config: Config) -> Iterator[Fault]:
    """Yield a fault for each incompatible pair of groups, and for each path that does not exist."""
    yield from worlds(config)
    yield from measurements(config)
    yield from value_adapter(config)
    yield from four_bits(config)
    yield from eos_penalties(config)
    yield from vllm_engine(config)
    yield from missing_files(config)


def worlds(config: Config) -> Iterator[Fault]:
    """Check that an embedded model is used with the embedded data of its vocabulary."""
    if config.task.name != "prepare":
        yield from config.model.unfit_for(config.dataset)


def measurements(config: Config) -> Iterator[Fault]:
    """Check that no measurement is the reward or lacks its file, and that a held-out reward model can be trained."""
    rewards = {getattr(one, "path", None) for _, one in singles(config.reward)}
    for name, one in config.measure.items():
        classifier = (PUBLISHED.get(one.detoxify or "") or one.model) if isinstance(one, Toxicity) else None
        if classifier and classifier in rewards:
            what = f"{classifier} is the reward as well"
            yield Fault(f"measure.{name}.model", what, "measure with another classifier")
    for name, suite in config.measure.items() if config.evaluation.enabled and not config.evaluation.data else ():
        if isinstance(suite, Suite) and not suite.path and not (suite.in_pocket and config.dataset.pocket_world):
            yield Fault(f"measure.{name}.path", "no file is set", "give one, or the folder evaluation.data=<folder>")
    if config.evaluation.reward_model == "auto" and (reward_stage(config) is None or config.task.name != "train"):
        what = "auto trains a reward model, which needs the settings of its stage"
        yield Fault("evaluation.reward_model", what, "use method=ppo or sweep=dpo_beta, or give a folder or a hub id")


def reward_stage(config: Config) -> str | None:
    """Return the name of the stage that makes a reward model and needs no other one; None where there is none."""
    stages = [name for name in config.stages if load_method(name).makes == "reward_model"]
    return next((name for name in stages if not any(load_method(name).needs.values())), None)


def value_adapter(config: Config) -> Iterator[Fault]:
    """Check that the value adapter has a policy with adapters whose weights are not partitioned."""
    if getattr(config.method, "value", None) != "adapter":
        return
    if config.model.adapter is None:
        yield Fault("method.value", "adapter needs a policy with low-rank adapters", "add model/adapter=lora")
    record = config.hardware.strategy_record
    if record.shards_weights or record.shards_gradients or record.shards_optimizer:
        what = f"hardware={config.hardware.strategy} partitions the weights that the value adapter needs"
        yield Fault("method.value", what, "use value=shared or separate")


def four_bits(config: Config) -> Iterator[Fault]:
    """Check that weights in 4 bits are on a GPU and are not partitioned."""
    if config.model.adapter is None or not config.model.adapter.load_in_4bit:
        return
    if config.hardware.device == "cpu":
        yield Fault("model.adapter.load_in_4bit", "weights in 4 bits need a CUDA GPU", "use model/adapter=lora")
    if config.hardware.strategy_record.shards_weights:
        what = f"hardware={config.hardware.strategy} partitions weights, which weights in 4 bits do not allow"
        yield Fault("model.adapter.load_in_4bit", what, "use hardware=single, ddp or zero2, or model/adapter=lora")


def eos_penalties(config: Config) -> Iterator[Fault]:
    """Check that a completion without an end token is not penalised by the reward and by the method."""
    penalties = [getattr(settings, "missing_eos_penalty", 0.0) for settings in (config.reward, config.method)]
    if all(penalties):
        what = "the method subtracts such a penalty, too"
        yield Fault("reward.missing_eos_penalty", what, "set it to 0, or method.missing_eos_penalty=0")


def vllm_engine(config: Config) -> Iterator[Fault]:
    """Check that no process partitions the weights, which vLLM gets whole; `mode=colocate` needs a single process."""
    if getattr(config.method, "engine", None) != "vllm":
        return
    if config.hardware.strategy_record.shards_weights:
        what = f"hardware={config.hardware.strategy} partitions the weights that vllm needs as a whole"
        yield Fault("method.engine", what, "use hardware=zero2 or ddp, or another engine")
    elif config.hardware.strategy_record.several_processes and config.method.vllm.mode == "colocate":  # type: ignore[attr-defined]
        what = f"colocate is for one process, and hardware={config.hardware.strategy} has several"
        yield Fault("method.vllm.mode", what, "use mode=server, or hardware=single")


def missing_files(config: Config) -> Iterator[Fault]:
    """Check that the files of a data set exist."""
    for name, paths in config.dataset.input_paths.items():
        for path in paths:
            if not path.exists():
                yield Fault(f"dataset.{name}", f"{path} is not there", "give a file or a folder")
