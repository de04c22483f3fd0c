"""Direct preference optimisation: learn from pairs, without a reward model (Rafailov et al. 2023).

TRL's DPOTrainer on rows that are tokenised here. The reference is the model that the stage starts from: a frozen
copy, or the same weights with the adapter off where an adapter is trained. `nll_weight` adds the chosen answers'
mean negative log-likelihood (Pang et al. 2024, eq. 1), which keeps them from becoming unlikely too.
"""

from collections.abc import Iterator
from typing import Any, Literal

from alignlab.config import NotNegative, Positive, Share, Training
from alignlab.errors import Fault, failure
from alignlab.run import Run

VIEW = "pairs"
NEEDS = {"policy": "sft"}
ENCODER_DECODERS = False  # TRL's trainer has no path for them


class Config(Training):
    """Settings of `conf/method/dpo.yaml`."""

    beta: Positive
    loss_type: Literal["sigmoid", "ipo", "hinge"]
    label_smoothing: Share
    nll_weight: NotNegative

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        if self.label_smoothing and self.loss_type != "sigmoid":
            yield Fault("label_smoothing", f"has no meaning with loss_type={self.loss_type}", "use loss_type=sigmoid")
        if self.label_smoothing >= 0.5:
            yield Fault(
                "label_smoothing", f"{self.label_smoothing:g} says that the labels tell nothing", "use less than 0.5"
            )


def train(run: Run[Config]) -> None:
    """Optimise `run.inputs["policy"]` on the pairs, with itself as the reference."""
    from trl import DPOConfig, DPOTrainer

    from alignlab.chat import encode
    from alignlab.models import adapter, attention, load_trainable
    from alignlab.training import InPieces, Row, arguments, fit, shorten, tokenised

    class TokenisedTrainer(InPieces, DPOTrainer):
        """Takes rows that are token ids already, as TRL's other trainers do."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    method = run.method
    model, tokenizer = load_trainable(run.inputs["policy"], method.dropout, attention(run.config))
    if model.config.is_encoder_decoder:
        raise failure(str(run.inputs["policy"]), "dpo does not train encoder-decoders", "use method=sft or method=rm")
    lora = adapter(run.config)
    reference = None if lora else load_trainable(run.inputs["policy"], 0.0, attention(run.config))[0]

    def row(pair: Row) -> dict[str, list[int]]:
        chosen, rejected = (encode(tokenizer, pair["prompt"], pair[side]) for side in ("chosen", "rejected"))
        longest = max(chosen, rejected, key=lambda encoded: len(encoded.completion))
        prompt = shorten(longest, method.max_length).prompt
        room = method.max_length - len(prompt)
        return {
            "prompt_ids": prompt,
            "chosen_ids": chosen.completion[:room],
            "rejected_ids": rejected.completion[:room],
        }

    rows = {split: tokenised(run, VIEW, split, row) for split in ("train", "validation")}
    with_nll = method.nll_weight > 0
    settings = DPOConfig(
        **arguments(run, rows["train"]),
        max_length=None,
        beta=method.beta,
        label_smoothing=method.label_smoothing,
        loss_type=[method.loss_type, *(["sft"] if with_nll else [])],
        loss_weights=[1.0, method.nll_weight] if with_nll else None,
        disable_dropout=method.dropout == 0,
    )
    fit(run, TokenisedTrainer, model, tokenizer, settings, rows, ref_model=reference, peft_config=lora)
