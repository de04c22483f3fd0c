"""Say before training what can be measured: how many held-out rows there are, and which measurements have none."""

from collections.abc import Iterator

from alignlab.config.method_protocol import load_method
from alignlab.config.schema import Config
from alignlab.evaluation.decisions import FEWEST_CLUSTERS
from alignlab.evaluation.protocol import count_rows, looked_up, view_of


def describe(config: Config) -> Iterator[str]:
    """Yield what the plan says of the measurements: the held-out prompts, and what is left out for want of rows."""
    if not config.evaluation.enabled:
        return
    split = config.evaluation.split
    names = dict.fromkeys(view_of(module) for _, _, module in looked_up(config))
    rows = {name: count_rows(config, name) for name in ("prompts", *names) if name}
    prompts = rows["prompts"]
    if not prompts:
        now = "give dataset.test_path, or more rows" if split == "test" else "give more rows"
        yield f"nothing is measured on completions: no {split} rows are held out; {now}"
    elif prompts < FEWEST_CLUSTERS:
        yield f"measured on {prompts} held-out prompt{'s' * (prompts != 1)}: too few to call a change better or worse"
    method = load_method(config.method.name)
    on_pairs = method.makes == "reward_model" or method.view == "pairs"
    missing = [
        name
        for name, _, module in looked_up(config)
        if (needed := view_of(module)) and not rows[needed] and (needed != "pairs" or on_pairs)
    ]
    if missing and prompts:
        yield f"not measured, since no rows for it are held out: {', '.join(missing)}"
