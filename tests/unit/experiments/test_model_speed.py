"""The benchmark of speeds: rows on both sides, ratios, rows without their reference, tables and charts."""

import json
import sys

import jax
import numpy as np
import pytest
from experiments.benchmarks.speed import models, networks, references

from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten

FACTS = {"device": "cpu", "kind": "cpu", "processor": "P", "threads": 2, "dtype": "float32", "pairs": 3}
FACTS |= {"versions": {"jax": "0.10.2"}, "environment": {}, "peak_flops": 2e9, "peak_source": "data sheet"}


def measured(**changes):
    found = {"batch": 8, "example": "image", "revision": "abc", "parameters": {"ours": 10, "reference": 10}}
    found |= {"flops": 4 * 10**9, "floor_seconds": 2.0, "compile_seconds": {"ours": 1.0, "compile": 20.0}}
    found["seconds"] = {"ours": [9.0, 4.0, 4.0], "eager": [6.0, 1.0, 8.0], "compile": [2.0, 2.0, 2.0]}
    return found | changes


def small(name, program="forward", dtype="float32"):
    row = networks.ROWS[name]
    fields = row.arguments("cpu", True)
    inputs = networks.make_inputs(row, fields, row.batch_size("cpu", True))
    return networks.make_network(row.family, fields, inputs, dtype)


@pytest.mark.parametrize("name", ["attention_7x7", "swinv2_tiny", "video_swin_tiny", "clip_vit_b32", "stylegan2_small"])
def test_each_family_has_a_forward_and_a_loss_that_is_trained(name):
    network = small(name)
    loss, gradient = jax.eval_shape(jax.value_and_grad(network.loss), network.params, network.inputs)
    assert loss.shape == () and loss.dtype == np.float32
    assert jax.tree.structure(gradient) == jax.tree.structure(network.params)
    assert jax.eval_shape(network.forward, network.params, network.inputs)


def test_a_step_updates_its_own_parameters_and_counts_the_flops_of_a_gradient():
    network = small("swin_tiny")
    forward, step = networks.forward_program(network), networks.step_program(network)
    assert 2.5 < step.flops / forward.flops < 3.1 and min(forward.compile_seconds, step.compile_seconds) > 0
    first, second = (float(step.wait(step.run())) for _ in range(2))
    assert second < first == pytest.approx(float(network.loss(network.params, network.inputs)), rel=1e-4)
    assert forward.wait(forward.run()).shape == (2, 8)


def test_a_step_of_attention_is_the_gradient_of_its_inputs_and_bias():
    network = small("attention_7x7")
    step = networks.step_program(network)
    _, gradient = step.wait(step.run())
    expected = jax.grad(network.loss)(network.params, network.inputs)
    np.testing.assert_allclose(gradient["qkv"], expected["qkv"], atol=1e-5)
    np.testing.assert_allclose(gradient["bias"], expected["bias"], atol=1e-5)
    assert not np.allclose(gradient["bias"], 0) and step.flops > networks.forward_program(network).flops


def test_rows_have_the_published_networks_and_their_inputs():
    row = networks.ROWS["video_swin_tiny"]
    assert row.arguments("cpu", False)["image_size"] == (16, 224, 224)
    assert row.arguments("gpu", False)["image_size"] == (32, 224, 224)
    assert (row.batch_size("cpu", False), row.batch_size("gpu", False), row.batch_size("gpu", True)) == (1, 8, 2)
    for name, row in networks.ROWS.items():
        fields = row.arguments("cpu", False)
        assert not fields.get("drop_path_rate") and not fields.get("dropout_rate"), name
        inputs = networks.make_inputs(row, row.arguments("cpu", True), 2)
        assert all(len(array) == 2 for array in inputs.values())
        assert ("label" in inputs) == ("swin" in row.family)


def test_programs_take_turns_and_a_sample_is_long_enough(monkeypatch):
    now, ran = [0.0], []
    monkeypatch.setattr(models.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(models.time, "sleep", lambda seconds: None)

    def program(name, seconds):
        def run():
            ran.append(name)
            now[0] += seconds

        return networks.Program(run, lambda out: None)

    found = models.alternate({"ours": program("ours", 1.0), "eager": program("eager", 0.15)}, 3)
    assert found["ours"] == [1.0] * 3 and found["eager"] == pytest.approx([0.15] * 3)
    assert ran[4:] == ["ours", "eager", "eager"] + ["eager", "eager", "ours"] + ["ours", "eager", "eager"]


def test_ratios_are_of_speeds_at_medians():
    assert models.speeds(measured()) == {"ours": 2.0, "eager": pytest.approx(8 / 6), "compile": 4.0}
    assert models.ratios(measured()) == {"eager": 1.5, "compile": 0.5}


@pytest.mark.parametrize(
    ("facts", "is_step", "floor"),
    [
        ({}, False, 2.0),  # no bandwidth: the products alone
        (dict(kind="NVIDIA H100 80GB HBM3", dtype="bfloat16"), False, 8 * 3350e9 / 3350e9),
        (dict(kind="NVIDIA H200", dtype="bfloat16"), True, (3 * 8 * 3350e9 + 28 * 10) / 4800e9),
        (dict(kind="NVIDIA H100 80GB HBM3", dtype="bfloat16", peak_flops=4e8), False, 10.0),
        (dict(kind="NVIDIA H100 80GB HBM3", dtype="float32"), False, 2.0),
    ],
)
def test_the_floor_is_the_longer_one_of_products_and_traffic(facts, is_step, floor):
    assert models.floor_seconds(measured(), FACTS | facts, 3350e9, is_step) == pytest.approx(floor)


def test_the_peak_is_of_a_data_sheet_or_measured(monkeypatch):
    h100 = FACTS | dict(kind="NVIDIA H100 80GB HBM3", dtype="bfloat16")
    assert models.find_peak(h100, 8) == {"peak_flops": 989e12, "peak_source": "data sheet"}
    monkeypatch.setattr(references, "measured_peak", lambda *_: 1.0)
    found = models.find_peak(FACTS, 16)
    assert found["peak_flops"] > 1 and found["peak_source"] == "product of 16 x 16 matrices"


def test_the_table():
    rows = {"swin_base:step": {"skipped": "no timm"}, "swin_tiny:forward": measured()}
    del rows["swin_tiny:forward"]["seconds"]["compile"], rows["swin_tiny:forward"]["compile_seconds"]["compile"]
    head, _, line, skipped = models.table({"rows": rows})
    assert line == "| `swin_tiny` | forward | 8 images | 2 | 1.333 | failed | 1.50 | failed | 1.0 | failed | 50% |"
    assert skipped.startswith("| `swin_base` | step | no timm |")
    assert head.count("|") == line.count("|") == skipped.count("|")


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["models.py", *arguments])
    models.main()


def test_the_table_and_the_chart_are_made_without_measuring(tmp_path, monkeypatch, capsys):
    out = tmp_path / "speed.json"
    with pytest.raises(UserError, match="there is no .*speed.json; leave out --table to measure"):
        run(monkeypatch, "--table", f"--out={out}")
    rows = {"swin_tiny:forward": measured(), "swin_tiny:step": {"skipped": "no timm"}}
    models.write(out, {"facts": FACTS, "rows": rows})
    run(monkeypatch, "--table", f"--out={out}")
    text = capsys.readouterr().out
    assert "device    cpu beside 2 threads of P" in text and "peak      2 GFLOP/s (data sheet)" in text
    assert "| `swin_tiny` | step | no timm |" in text and out.with_suffix(".png").stat().st_size > 5000


def hide(monkeypatch, *packages):
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(references, "versions", lambda: {})


def test_rows_without_their_reference_are_skipped_by_name(tmp_path, monkeypatch, capsys):
    hide(monkeypatch, "torch")
    out = tmp_path / "speed.json"
    before = measured()
    run(monkeypatch, "--tiny", "--only=clip", f"--out={out}")
    line = "skipped clip_vit_b32:step: torch cannot be imported: pip install -e '.[peers]'"
    assert line in capsys.readouterr().err
    results = json.loads(out.read_text())
    assert list(results["rows"]) == ["clip_vit_b32:forward", "clip_vit_b32:step"]
    # What was measured before stays.
    results["rows"]["clip_vit_b32:step"] = before
    models.write(out, results)
    run(monkeypatch, "--tiny", "--only=clip_vit_b32:step", f"--out={out}")
    assert json.loads(out.read_text())["rows"]["clip_vit_b32:step"] == before


def test_each_row_is_written_as_soon_as_it_is_known(tmp_path, monkeypatch):
    hide(monkeypatch, "torch")

    def measure(name, *_):
        if name == "swin_base:step":
            raise KeyboardInterrupt
        return measured()

    monkeypatch.setattr(models, "measure", measure)
    out = tmp_path / "speed.json"
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, "--tiny", "--only=swin_", f"--out={out}")
    assert set(json.loads(out.read_text())["rows"]) == {"swin_tiny:forward", "swin_tiny:step", "swin_base:forward"}


def test_rows_of_another_machine_are_not_mixed_in(tmp_path):
    models.write(tmp_path / "speed.json", {"facts": FACTS, "rows": {}})
    assert models.load(tmp_path / "speed.json", FACTS)["rows"] == {}
    with pytest.raises(UserError, match="has rows with other threads: give another --out"):
        models.load(tmp_path / "speed.json", FACTS | {"threads": 4})


def test_both_libraries_must_see_a_gpu(monkeypatch):
    monkeypatch.setattr(references, "sees_gpu", lambda: False)
    assert models.choose_device("auto") == models.choose_device("cpu") == "cpu"
    with pytest.raises(UserError, match="JAX and torch cannot see a GPU"):
        models.choose_device("gpu")
    monkeypatch.setattr(references, "sees_gpu", lambda: True)
    with pytest.raises(UserError, match="^JAX cannot see a GPU: install its build for GPUs, or --device=cpu"):
        models.choose_device("auto")


def test_stylegan2_restated_in_torch_equals_ours():
    torch = pytest.importorskip("torch")
    row = networks.ROWS["stylegan2_small"]
    fields = row.arguments("cpu", True)
    inputs = networks.make_inputs(row, fields, 4)
    reference = references.make_reference(row.family, fields, inputs, "cpu")
    network = networks.make_network(row.family, fields, inputs, "float32")
    params = jax.tree.map(lambda leaf: leaf + 0.1, network.params)  # no bias and no strength is 0
    _copy(reference.forward, params, {"synthesis": network.inputs["held"]["noise"]["synthesis"]})
    _copy(reference.trained.discriminator, network.inputs["judge"]["params"], {})
    with torch.no_grad():
        image, loss = reference.forward(*reference.inputs), reference.trained(*reference.inputs)
    ours = network.forward(params, network.inputs)
    np.testing.assert_allclose(image.permute(0, 2, 3, 1).numpy(), ours, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(loss.numpy(), network.loss(params, network.inputs), rtol=1e-4)


def _copy(module, params, buffers):
    """Copies parameters of ours into a module of torch, by their names."""
    torch = pytest.importorskip("torch")
    arrays = {name.replace("/", "."): np.asarray(leaf) for name, leaf in flatten(params).items()}
    arrays |= {name.replace("/", "."): np.asarray(leaf) for name, leaf in flatten(buffers).items()}
    state = module.state_dict()
    assert set(arrays) == set(state)
    for name, array in arrays.items():
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif name.endswith("const") and array.ndim == 3:
            array = array.transpose(2, 0, 1)
        state[name] = torch.tensor(array)
    module.load_state_dict(state)
