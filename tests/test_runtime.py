"""The machine: tiers, precision, seeds, the first line of a notebook."""

import random
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
import torch

from nbs_utils import runtime


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    monkeypatch.delenv("NBS_QUICK", raising=False)
    monkeypatch.delenv("NBS_DEVICE", raising=False)


@pytest.mark.parametrize("value, quick", [("1", True), ("0", False), ("", False)])
def test_quick_mode_is_one_environment_variable(monkeypatch, value, quick):
    monkeypatch.setenv("NBS_QUICK", value)
    assert runtime.is_quick() is quick
    if quick:
        assert runtime.budget(gpu=3, cpu=2, quick=1) == 1


def test_budget_follows_the_device(monkeypatch):
    monkeypatch.setenv("NBS_DEVICE", "cpu")
    assert runtime.budget(gpu=3, cpu=2, quick=1) == 2
    monkeypatch.setenv("NBS_DEVICE", "cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert runtime.device() == torch.device("cuda", 1)
    assert runtime.budget(gpu=3, cpu=2, quick=1) == 3
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="this machine has no such device"):
        runtime.device()


def test_unknown_device_is_named(monkeypatch):
    monkeypatch.setenv("NBS_DEVICE", "toaster")
    with pytest.raises(ValueError, match="toaster.*cpu, cuda"):
        runtime.device()


def test_auto_precision_trusts_only_native_bfloat16(monkeypatch):
    cuda, cpu = torch.device("cuda"), torch.device("cpu")

    def supported(including_emulation=True):
        return including_emulation  # a T4: yes by emulation, no in silicon

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    old = runtime.precision("auto", cuda)
    assert (old.dtype, old.scaler) == (torch.float16, True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    new = runtime.precision("auto", cuda)
    assert (new.dtype, new.scaler) == (torch.bfloat16, False)
    for flags, dtype in [
        ("sse avx512_bf16", torch.bfloat16),
        ("sse amx_bf16", torch.bfloat16),
        ("sse avx512f", torch.float32),
    ]:
        monkeypatch.setattr(runtime, "_cpu_info", lambda key, flags=flags: flags)
        assert runtime.precision("auto", cpu).dtype == dtype


def test_precision_by_name_and_its_error():
    assert runtime.precision("float16", "cpu").scaler
    assert str(runtime.precision("bfloat16", "cpu")) == "bfloat16"
    with pytest.raises(ValueError, match="'fp8'.*auto, float32"):
        runtime.precision("fp8")


def test_seeding_reaches_all_three_generators():
    def draw():
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    runtime.seed_everything(7)
    first = draw()
    runtime.seed_everything(7)
    assert draw() == first
    runtime.seed_everything(8)
    assert all(a != b for a, b in zip(draw(), first))


def test_derived_seeds_are_stable_distinct_and_ordered():
    # A fixed value: checkpoints written on one machine must resume on another.
    code = "from nbs_utils.runtime import derive_seed; print(derive_seed(0, 1, 2))"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert int(other.stdout) == runtime.derive_seed(0, 1, 2) == 4529435921577843265
    grid = {runtime.derive_seed(s, e, i) for s in range(9) for e in range(9)
            for i in range(9)}  # fmt: skip
    assert len(grid) == 729
    assert all(0 <= n < 2**63 for n in grid)
    assert runtime.derive_seed(1, 23) != runtime.derive_seed(12, 3)


def test_start_prints_one_line_and_in_quick_mode_two(monkeypatch, capsys):
    runtime.start(seed=3)
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    for part in (torch.__version__, runtime.device_name(), str(runtime.precision())):
        assert part in line
    expected = torch.rand(2)
    runtime.start(seed=3)
    assert torch.equal(torch.rand(2), expected)
    capsys.readouterr()
    monkeypatch.setenv("NBS_QUICK", "1")
    runtime.start()
    assert capsys.readouterr().out.splitlines()[1].startswith("Quick run:")


def test_threads_share_the_work_and_leave_torch_as_it_was():
    before = torch.get_num_threads()
    done, alone = [], set()

    def work(part):
        alone.add(torch.get_num_threads())
        if part == 3:
            raise KeyError(part)
        done.append(part)

    runtime.in_threads(work, [0, 1, 2], 2)
    assert sorted(done) == [0, 1, 2] and alone == {1}
    with pytest.raises(KeyError):
        runtime.in_threads(work, [3, *range(4, 400)], 2)
    assert len(done) < 399  # the rest was called off
    assert torch.get_num_threads() == before
    found = []
    other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert found == [before]


@pytest.mark.parametrize(
    ("largest", "asked"),
    [
        (2**30, [(-3, 2**30), (-1, 2**31 - 1)]),
        (2**25, [(-3, 2**30), (-3, 2**25), (-1, 2**31 - 1)]),  # an older glibc
        (0, [(-3, 2**30), (-3, 2**25)]),  # then the other is left alone, too
    ],
)
def test_freed_memory_is_kept_only_where_both_thresholds_can_be_set(
    monkeypatch, largest, asked
):
    calls = []

    def mallopt(what, size):
        calls.append((what, size))
        return int(what == -1 or size <= largest)

    library = types.SimpleNamespace(mallopt=mallopt)
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda name: library)
    keep = runtime.keep_freed_memory.__wrapped__
    assert keep() is bool(largest)
    assert calls == asked


def test_freed_memory_is_left_to_other_c_libraries(monkeypatch):
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda name: object())
    assert runtime.keep_freed_memory.__wrapped__() is False
