"""The run header: what it says, and that a run resumes with the frozen arrays it was started with only."""

import json

import jax
import ml_collections
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.train import run_info, sharding

CONFIG = ml_collections.ConfigDict(dict(batch_size=16, total_steps=5))


def frozen(value=1.0):
    return {"net": {"kernel": np.full((2, 3), value, np.float32), "bias": np.arange(3, dtype=np.float32)}}


def facts(arrays=None, described=None, sources=None):
    return run_info.facts(CONFIG, described or {}, sharding.make_mesh(2, 2, 2), arrays or {}, sources)


def check(workdir, arrays=None, sources=None):
    run_info.check_frozen(workdir, facts(arrays, sources=sources), arrays or {})


def test_the_lines_name_devices_model_versions_and_source():
    found = facts(described={"parameters": 28_288_354, "gflops_per_image": 4.4942})
    text = "\n".join(run_info.lines(found))
    for part in ("8 x cpu", "data 2 x fsdp 2 x tensor 2", "28,288,354 parameters", "4.494 GFLOPs", "batch size 16",
                 f"jax {jax.__version__}", found["python"], found["revision"]):  # fmt: skip
        assert part in text
    assert all("\n" not in line for line in run_info.lines(found))


@pytest.mark.parametrize("count, told", [(1, "(1 process)"), (2, "(2 processes)")])
def test_processes_are_counted(count, told, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: count)
    assert facts()["devices"].endswith(told)


def test_a_task_may_describe_nothing():
    text = "\n".join(run_info.lines(facts()))
    assert "see the config" in text and "parameters" not in text
    assert "frozen" not in facts()


def test_notes_of_the_task_and_the_notice_of_a_recipe_are_said(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    config = ml_collections.ConfigDict(dict(batch_size=16, total_steps=5, notice="the window is ours"))
    found = run_info.facts(config, {"notes": ["statistics of micro-batches"]}, sharding.make_mesh(8), {})
    said = [line for line in run_info.lines(found) if line.startswith("note ")]
    assert [line.split(None, 1)[1] for line in said] == ["statistics of micro-batches", "the window is ours"]
    assert not any(line.startswith("note ") for line in run_info.lines(facts()))


def test_runs_on_a_cpu_are_told_of_large_pages_where_they_have_to_ask_for_them(monkeypatch, tmp_path):
    choice = tmp_path / "enabled"
    monkeypatch.setattr(run_info, "_HUGE_PAGES", choice)
    monkeypatch.setattr(run_info.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert run_info.huge_pages_note() is None  # no such file
    choice.write_text("[always] madvise never\n")
    assert run_info.huge_pages_note() is None
    choice.write_text("always [madvise] never\n")
    (said,) = facts()["notes"]
    assert "GLIBC_TUNABLES=glibc.malloc.hugetlb=1" in said
    for library in (("glibc", "2.31"), ("", "")):
        monkeypatch.setattr(run_info.platform, "libc_ver", lambda library=library: library)
        assert run_info.huge_pages_note() is None
    monkeypatch.setattr(run_info.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1:glibc.malloc.hugetlb=1")
    assert run_info.huge_pages_note() is None


def test_what_is_written_is_json_of_the_facts(tmp_path):
    found = facts(frozen(), {"parameters": 3})
    run_info.write(tmp_path, found)
    assert json.loads((tmp_path / "header.json").read_text()) == found
    assert found["batch_size"] == 16 and found["total_steps"] == 5
    assert found["mesh"] == {"data": 2, "fsdp": 2, "tensor": 2}


def test_equal_frozen_arrays_pass_wherever_they_lie(tmp_path):
    run_info.write(tmp_path, facts(frozen()))
    check(tmp_path, frozen())
    check(tmp_path, jax.device_put(frozen(), sharding.replicated(sharding.make_mesh())))


@pytest.mark.parametrize(
    "other",
    [
        frozen(1.0000001),
        {"net": {"kernel": frozen()["net"]["kernel"]}},
        {"net": {"kernel": frozen()["net"]["kernel"], "scale": frozen()["net"]["bias"]}},
        {"net": {"bias": frozen()["net"]["bias"], "kernels": frozen()["net"]["kernel"]}},
        {"net": {**frozen()["net"], "more": np.zeros(1, np.float32)}},
        {},
    ],
)
def test_other_frozen_arrays_are_refused(tmp_path, other):
    run_info.write(tmp_path, facts(frozen()))
    with pytest.raises(UserError, match="the frozen weights are not those") as caught:
        check(tmp_path, other)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_first_run_and_a_run_without_frozen_arrays_have_nothing_to_compare(tmp_path):
    check(tmp_path, frozen())
    run_info.write(tmp_path, facts())
    check(tmp_path)


def test_the_header_and_a_refusal_name_the_sources(tmp_path):
    found = facts(frozen(), sources={"net": "runs/a"})
    assert any(line.startswith("frozen    net from runs/a, sha256 ") for line in run_info.lines(found))
    run_info.write(tmp_path, found)
    check(tmp_path, frozen(), {"net": "runs/b"})  # the same weights in another place
    with pytest.raises(UserError, match="net from runs/a, sha256 .* given are net from runs/b, sha256 "):
        check(tmp_path, frozen(2.0), {"net": "runs/b"})
    with pytest.raises(UserError, match="given are none"):
        check(tmp_path)


def test_a_header_of_before_the_sources_is_compared(tmp_path):
    before = "1551b06472b6470a7b13a432f1fba97cf6f54b8a96f9c76fa286505ced815698"
    run_info.write(tmp_path, facts() | {"frozen": before})
    check(tmp_path, frozen())
    with pytest.raises(UserError, match=f"sha256 {before[:12]}"):
        check(tmp_path, frozen(2.0))


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"frozen": [1]}', '{"frozen": {"sha256": 1}}', '{"frozen": {"sha256": "a"}}']
)
def test_a_header_that_is_damaged_is_one_line(tmp_path, text):
    (tmp_path / "header.json").write_text(text)
    with pytest.raises(UserError, match="header.json is damaged: ") as caught:
        check(tmp_path, frozen())
    assert "\n" not in str(caught.value)
