"""Several processes, each with the whole model (torch's DistributedDataParallel)."""

from alignlab.config.strategy import Strategy

STRATEGY = Strategy(gradient_buckets=True, keeps_half_copy=True, same_checkpoints_as="single")
