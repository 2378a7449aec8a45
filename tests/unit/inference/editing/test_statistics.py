"""Statistics of styles, against numpy on all of them."""

import json
import warnings

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.inference.editing import statistics as files
from swin_jax.models.clip import make_clip
from swin_jax.models.styleclip.statistics import Draws, style_statistics
from tests.editing import CLIP
from tests.unit.inference.editing.small import models


@pytest.mark.parametrize("draws", [Draws(samples=70, batch_size=30), Draws(70, batch_size=70, truncation_cutoff=2)])
def test_means_and_deviations_are_those_of_all_styles(draws):
    made = models()
    variables = dict(made.variables)
    variables["averages"] = {"mapping": {"w_avg": np.linspace(-1, 1, 8, dtype=np.float32)}}
    z = np.random.RandomState(5).randn(70, 8).astype(np.float32)
    ws = made.generator.apply(variables, z, truncation=1.0, method="map")
    center = variables["averages"]["mapping"]["w_avg"]
    rows = made.generator.num_ws if draws.truncation_cutoff is None else draws.truncation_cutoff
    truncated = np.array(ws)
    truncated[:, :rows] = center + 0.7 * (truncated[:, :rows] - center)
    styles = made.generator.apply(variables, truncated, method="styles")
    found = style_statistics(made.generator, variables, draws)
    for style, mean, deviation in zip(styles, found.means, found.deviations, strict=True):
        np.testing.assert_allclose(mean, np.mean(style, axis=0), atol=1e-5)
        np.testing.assert_allclose(deviation, np.std(style, axis=0), atol=1e-5)
    few = draws.styles(made.generator, variables, 3)
    np.testing.assert_allclose(few[2], styles[2][:3], atol=1e-5)


def test_files_are_those_of_the_released_code(tmp_path):
    made = models()
    found = style_statistics(made.generator, made.variables, Draws(samples=1000))
    files.write_moments(tmp_path, found)
    with pytest.raises(UserError, match=r"--config.statistics=.*there is no fs3.npy; give"):
        files.check_folder(str(tmp_path))
    rows = np.eye(24, 8, dtype=np.float32)[:16]  # which may end before the last layer
    np.save(tmp_path / "fs3.npy", rows)
    read, directions = files.read_folder(tmp_path, made.generator, made.variables, made.clip_variables)
    np.testing.assert_array_equal(directions, rows)
    np.testing.assert_array_equal(read.deviations[3], found.deviations[3])
    (tmp_path / "S_mean_std").rename(tmp_path / "S_mean_std.pkl")
    assert files.find_moments(tmp_path).name == "S_mean_std.pkl"


def test_statistics_as_the_port_to_torch_has_them_are_of_the_generator(tmp_path, monkeypatch):
    made = models()
    monkeypatch.setattr(files, "_PORT_CUTOFF", 2)  # of 4 rows, in place of 8 of 18
    np.save(tmp_path / "fs3.npy", np.eye(24, 8, dtype=np.float32))
    for cutoff, is_known in ((2, True), (1, False)):
        found = style_statistics(made.generator, made.variables, Draws(samples=1000, truncation_cutoff=cutoff))
        files.write_moments(tmp_path, found)
        if is_known:
            files.read_folder(tmp_path, made.generator, made.variables, made.clip_variables)
        else:
            with pytest.raises(UserError, match="the statistics are of another generator"):
                files.read_folder(tmp_path, made.generator, made.variables, made.clip_variables)


def test_statistics_of_another_activation_are_refused(tmp_path):
    """With the same weights; of files of before, which do not tell it, a warning does."""

    def origin(**changes):
        return files.origin({"a": np.ones(2)}, {"b": np.ones(3)}, make_clip(**CLIP | changes))

    known = origin()
    before = {name: value for name, value in known.items() if name != "network"}
    (tmp_path / files.ORIGIN).write_text(json.dumps(before))
    with pytest.warns(UserWarning, match="does not tell with which activation of the CLIP"):
        files.check_origin(tmp_path, origin(act="gelu"))
    (tmp_path / files.ORIGIN).write_text(json.dumps(known))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files.check_origin(tmp_path, origin(remat="full"))
    with pytest.raises(UserError, match="statistics of a CLIP with another activation"):
        files.check_origin(tmp_path, origin(act="gelu"))
