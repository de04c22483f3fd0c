"""DeepSpeed ZeRO-3: each process has a share of weights, gradients and optimizer."""

from alignlab.config.strategy import Strategy

STRATEGY = Strategy(deepspeed_stage=3, shards_weights=True, shards_gradients=True, shards_optimizer=True)
