"""Data sheets of usual GPUs, so that a run can be planned for a machine that is not this one."""

from dataclasses import dataclass

BF16_CAPABILITY = GROUPS_CAPABILITY = (8, 0)  # of GPUs with bfloat16, and with fused attention for heads sharing keys


@dataclass(frozen=True)
class DeviceSheet:
    """A GPU: bytes that torch can allocate on it when nothing else runs there, and its compute capability."""

    name: str
    free: int
    capability: tuple[int, int]


SHEETS = {
    name: DeviceSheet(name, int(gib * 2**30), capability)
    for name, gib, capability in (
        ("t4", 14.6, (7, 5)),
        ("p100", 15.7, (6, 0)),
        ("v100", 15.7, (7, 0)),
        ("l4", 22.0, (8, 9)),
        ("rtx4090", 23.5, (8, 9)),
        ("a100_40gb", 39.2, (8, 0)),
        ("a100", 79.0, (8, 0)),
        ("h100", 79.0, (9, 0)),
    )
}
