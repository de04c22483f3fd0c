"""The reference of DPO and KTO: a frozen copy of the starting model, or the policy with its adapter off."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alignlab.config.method import Training
from alignlab.errors import failure
from alignlab.models.load import adapter, load_frozen, load_options, load_trainable
from alignlab.models.log_probs import fused_log_probs
from alignlab.runtime.stage_run import Run


class Networks(NamedTuple):
    """The policy, its tokenizer, the settings of its adapter if it has one, and the reference if that is a copy."""

    model: Any
    tokenizer: Any
    lora: Any
    reference: Any


def load_with_reference(run: Run[Training]) -> Networks:
    """Load the policy and its reference; raise a `Failure` for an encoder-decoder."""
    path, hardware = run.inputs["policy"], run.config.hardware
    model, tokenizer = load_trainable(path, hardware, run.method.dropout, **load_options(run.config))
    if model.config.is_encoder_decoder:
        what = f"{run.method.name} does not train encoder-decoders"
        raise failure(str(path), what, "use method=sft or method=rm")
    lora = adapter(run.config, model)
    reference = None if lora else load_frozen(path, hardware, run.config.model.attention)
    return Networks(model, tokenizer, lora, reference)


class WithReference:
    """A trainer of TRL that computes its reference itself."""

    @contextmanager
    def reference(self: Any) -> Iterator[Any]:
        """Yield the reference: the frozen copy, or the policy with its adapter off and without dropout."""
        if self.ref_model is not None:
            yield self.ref_model
            return
        training = self.model.training
        self.model.eval()
        try:
            with self.accelerator.unwrap_model(self.model).disable_adapter():
                yield self.model
        finally:
            self.model.train(training)

    def reference_log_probs(self, inputs: Any, mask: Tensor) -> Tensor:
        """Return the reference's log-probabilities of completions, [rows]; see `fused_log_probs`."""
        with torch.no_grad(), self.reference() as model:
            return fused_log_probs(model, inputs, mask)[0]
