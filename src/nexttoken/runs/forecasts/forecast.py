"""The forecast of a prediction: its time, memory and disk."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Forecast:
    """A prediction's time in seconds, shortest and longest, and its bytes of memory and on disk.

    Memory is that of each GPU, or of the process on a CPU. `processor` are seconds of processor time, where a trial
    measured them: other work on the machine leaves them as they are. `assumed` are lines for people.
    """

    seconds: tuple[float, float]
    memory: int
    disk: int
    processor: float | None = None
    assumed: tuple[str, ...] = ()

    def __add__(self, other: "Forecast") -> "Forecast":
        """One after the other."""
        low, high = (one + two for one, two in zip(self.seconds, other.seconds, strict=True))
        memory, assumed = max(self.memory, other.memory), (*self.assumed, *other.assumed)
        return Forecast((low, high), memory, self.disk + other.disk, assumed=assumed)

    @property
    def middle(self) -> float:
        return sum(self.seconds) / 2
