"""FSDP2 of torch, on GPUs only: each process has a share of weights, gradients and optimizer."""

from alignlab.config.strategy import Strategy

STRATEGY = Strategy(
    needs_gpu=True,
    uses_fsdp=True,
    shards_weights=True,
    shards_gradients=True,
    shards_optimizer=True,
    trains_generating_methods=False,
)
