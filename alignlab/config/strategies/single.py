"""One process on one device."""

from alignlab.config.strategy import Strategy

STRATEGY = Strategy(several_processes=False, processes_on_cpu=1, keeps_half_copy=True)
