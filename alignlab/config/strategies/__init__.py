"""One module per strategy of `conf/hardware/`, found by its name; each declares its record, `STRATEGY`."""

from pkgutil import iter_modules

NAMES = tuple(module.name for module in iter_modules(__path__))
DEEPSPEED_SHARDED = "zero3"  # the strategy that divides weights, gradients and optimizer on any device
ALONE = "single"  # the strategy of a process that trains with no other
