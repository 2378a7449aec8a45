"""The example of a segmentation head on the dense backbone: it learns, on an odd size, and draws."""

import importlib.util


def test_it_learns(tmp_path, root, capsys):
    spec = importlib.util.spec_from_file_location(
        "segmentation_head", root / "experiments" / "notebooks" / "segmentation_head.py"
    )
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    assert all(size % 2 for size in example.SIZE)
    path = tmp_path / "segmentation.png"
    accuracy, ground = example.main(steps=50, path=str(path), batch_size=4)
    assert accuracy > ground + 0.05
    assert f"pixel accuracy {accuracy:.3f}" in capsys.readouterr().out
    assert path.stat().st_size > 10_000
