"""How the model is asked: once, in several orders, with solved questions first, with passages where it is unsure."""

from nexttoken.inference.demonstrations import Demonstrations
from nexttoken.inference.few_shot import FewShot
from nexttoken.inference.once import Answerer, Inference, Once
from nexttoken.inference.orders import RotationAveraged, SwapAveraged
from nexttoken.inference.passages import ConfidenceGated, WithPassages
from nexttoken.inference.replies import Replies

__all__ = [
    "Answerer",
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
