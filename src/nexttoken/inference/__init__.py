"""Ways to query the model: once, in several orders, with demonstrations, with passages where it is unsure."""

from nexttoken.inference.demonstrations import Demonstrations, FewShot
from nexttoken.inference.once import Inference, Once, Replies
from nexttoken.inference.orders import AdaptiveSwap, RotationAveraged, SwapAveraged
from nexttoken.inference.passages import ConfidenceGated, WithPassages

__all__ = [
    "AdaptiveSwap",
    "ConfidenceGated",
    "Demonstrations",
    "FewShot",
    "Inference",
    "Once",
    "Replies",
    "RotationAveraged",
    "SwapAveraged",
    "WithPassages",
]
