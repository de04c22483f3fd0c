"""DeepSpeed ZeRO-2: each process has the whole model, and a share of gradients and optimizer."""

from alignlab.config.strategy import Strategy

STRATEGY = Strategy(deepspeed_stage=2, shards_gradients=True, shards_optimizer=True)
