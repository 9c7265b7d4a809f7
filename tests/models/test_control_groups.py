"""The room under a container's memory limit, as both versions of control groups write it."""

import pytest

from nexttoken.models.control_groups import control_group_room
from nexttoken.models.memory import free_memory


def write(folder, **files) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


@pytest.mark.parametrize("inside", ["", "job/7"])
def test_room_under_a_limit_of_version_2(tmp_path, inside):
    (tmp_path / "own").write_text("0::/job/7\n")
    stat = "anon 300\ninactive_file 200\nactive_file 50"
    write(tmp_path / "mount" / inside, memory__max=1000, memory__current=600, memory__stat=stat)
    assert control_group_room(tmp_path / "mount", tmp_path / "own") == 600


def test_room_under_a_limit_of_version_1(tmp_path):
    (tmp_path / "own").write_text("5:cpu,cpuacct:/\n4:memory:/job\n0::/\n")
    files = {"memory__limit_in_bytes": 1000, "memory__usage_in_bytes": 1100, "memory__stat": "total_inactive_file 50"}
    write(tmp_path / "mount" / "memory" / "job", **files)
    no_limit = files | {"memory__limit_in_bytes": 9223372036854771712}
    write(tmp_path / "mount" / "memory", **no_limit)
    assert control_group_room(tmp_path / "mount", tmp_path / "own") == 0


def test_no_limit_and_no_groups(tmp_path):
    (tmp_path / "own").write_text("0::/\n")
    write(tmp_path / "mount", memory__max="max", memory__current=600)
    assert control_group_room(tmp_path / "mount", tmp_path / "own") is None
    assert control_group_room(tmp_path / "none", tmp_path / "nothing") is None


def test_free_memory_is_that_under_the_limit(monkeypatch):
    import torch

    from nexttoken.models import memory

    monkeypatch.setattr(memory, "control_group_room", lambda: 12345)
    assert free_memory(torch.device("cpu")) == 12345
