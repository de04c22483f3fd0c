"""Settings of `conf/method/_gates.yaml`: when gates are checked, and their bounds."""

from typing import Literal

from alignlab.config.settings import Count, NotNegative, Positive, Settings, Share

Mode = Literal["stop", "warn", "off"]


class ByPrecision(Settings):
    """A bound for each precision that a run computes in."""

    float32: Positive
    bfloat16: Positive


class Gates(Settings):
    """Settings of `conf/method/_gates.yaml`."""

    before: Mode
    during: Mode
    min_finished: Share
    max_calibration_error: Share
    max_first_kl: Positive
    max_first_ratio: ByPrecision
    window: Count
    max_kl: Positive
    min_explained_variance: float
    explained_variance_after: Count
    max_clip_fraction: Share
    max_engine_mismatch: ByPrecision
    min_entropy_share: NotNegative
    max_length_share: Positive
    min_length_share: NotNegative
    min_distinct_share: NotNegative
    min_variety_share: NotNegative
    max_strange_growth: NotNegative
    max_truncated_growth: NotNegative
    max_spread_share: Positive
    max_held_out_loss: NotNegative
