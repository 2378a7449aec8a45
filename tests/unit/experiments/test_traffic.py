"""The benchmark of memory traffic: what its rows compile, and that it goes on where it was stopped."""

import json

import pytest
from experiments.benchmarks import traffic

from swin_jax.plan import chips


@pytest.mark.parametrize("row", traffic.rows())
def test_a_row_is_a_recipe_on_a_slice_and_forwards_make_no_updates(row):
    config = traffic.load(row)
    topology = chips.topology(config.topology)
    assert topology.chip.name == "v5e" and config.batch_size % topology.size == 0
    assert (config.total_steps == 0) == (":forward:" in row)


def facts(fits=True):
    found = {"topology": "v5e:2x4", "chips": 8, "batch_size": 16, "accumulate": 1, "versions": {"jax": "0.10.2"}}
    found["memory"] = {"fits": fits, "peak": 10**9, "temporaries": 6 * 10**6}
    found["hbm_bytes"] = 8 * 10**6
    return found | {"roofline": {"examples_per_second": 800.0, "mfu": 0.25, "limit": "memory"}}


def test_numbers_are_per_example_of_a_chip():
    found = traffic.summary(facts())
    assert (found["traffic_bytes"], found["temporary_bytes"], found["examples_per_second"]) == (4e6, 3e6, 100)
    head, _, line = traffic.table({"swin_tiny:step:xla": found})
    assert line == "| `swin_tiny` | step | plain | v5e:2x4 | 16 | 4 | 3 | 100 | 25% | memory |"
    (missing,) = traffic.table({"swin_tiny:step:xla": traffic.summary(facts(fits=False))})[2:]
    assert "does not fit" in missing and missing.count("|") == head.count("|")


def test_rows_that_are_known_are_left_out(tmp_path, monkeypatch, capsys):
    compiled = []
    monkeypatch.setattr(traffic, "RESULTS", tmp_path / "traffic.json")
    monkeypatch.setattr(traffic.tpu_compiler, "prepare_backend", lambda: None)
    monkeypatch.setattr(traffic, "compiled", lambda row: compiled.append(row) or traffic.summary(facts()))
    traffic.keep("swin_tiny:forward:xla", traffic.summary(facts()))
    for arguments, rows in [
        (["--table"], []),
        (["--only=swin_base:step"], ["swin_base:step:xla", "swin_base:step:auto"]),
        (["--only=swin_base:step:auto", "--again"], ["swin_base:step:auto"]),
        ([], [row for row in traffic.rows() if row != "swin_tiny:forward:xla" and "swin_base:step" not in row]),
    ]:
        compiled.clear()
        monkeypatch.setattr("sys.argv", ["traffic.py", *arguments])
        traffic.main()
        assert compiled == rows
    assert set(json.loads(traffic.RESULTS.read_text())) == set(traffic.rows())
    assert capsys.readouterr().out.splitlines()[-1].startswith("| `video_swin_tiny` | step |")
