"""The memory plan as a table: its parts, the free memory, and the settings that would fit."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One line of the plan; `size` in bytes, None where it could not be planned."""

    name: str
    size: int | None
    note: str = ""


@dataclass(frozen=True)
class MemoryPlan:
    """Memory that a run needs on `device`, which has `free` bytes left (None: unknown). It refuses nothing.

    `advice`: overrides that would fit, None if none do; `least`: bytes needed with them, or with all changes.
    """

    device: str
    free: int | None
    num_parameters: int
    num_trainable: int
    shape: tuple[int, int]  # rows x tokens of a full batch
    parts: tuple[Part, ...]
    advice: tuple[str, ...] | None = ()
    least: int | None = None

    @property
    def needed(self) -> int:
        return sum(part.size or 0 for part in self.parts)

    @property
    def is_complete(self) -> bool:
        return all(part.size is not None for part in self.parts)

    @property
    def fits(self) -> bool:
        return self.is_complete and (self.free is None or self.needed <= self.free)

    def size(self, name: str) -> int | None:
        return next(part.size for part in self.parts if part.name == name)

    def table(self) -> str:
        share = f"{self.num_trainable:,} of them trained" if self.num_trainable else "none of them trained"
        rows, tokens = self.shape
        sizes = f"{self.num_parameters:,} parameters, {share}, batches of {rows} x {tokens} tokens"
        width = max(len(part.name) for part in self.parts)
        lines = [f"{part.name:<{width}}  {in_units(part.size):>9}  {part.note}".rstrip() for part in self.parts]
        return "\n".join([f"plan for {self.device}: {sizes}", *lines, self._verdict()])

    def _verdict(self) -> str:
        needs = f"needs about {in_units(self.needed)}"
        if not self.is_complete:
            return f"{needs} and an unknown part, of {in_units(self.free)} free"
        if self.free is None:
            return f"{needs}; how much is free on {self.device} is unknown"
        if self.fits:
            return f"{needs} of {in_units(self.free)}: fits"
        short = f"{needs}, {in_units(self.free)} are free"
        if self.advice is None:
            return f"{short}; no settings would fit, the least is {in_units(self.least)}: take a smaller model"
        return f"{short}; these settings would fit in {in_units(self.least)}: {' '.join(self.advice)}"


def in_units(size: int | None) -> str:
    """Bytes in a readable unit: `14.9 GiB`, `160 MiB`, `0.2 MiB`."""
    if size is None:
        return "?"
    if size >= 2**30:
        return f"{size / 2**30:.1f} GiB"
    return f"{size / 2**20:.0f} MiB" if size >= 10 * 2**20 else f"{size / 2**20:.1f} MiB"
