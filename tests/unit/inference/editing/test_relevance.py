"""Relevance of channels: against whole runs, and killed and resumed."""

import functools

import jax
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.core.params import weights_checksum
from swin_jax.evals.samples import to_bytes
from swin_jax.inference.editing import relevance
from swin_jax.inference.editing import statistics as files
from swin_jax.inference.editing.relevance import compute, measure, pieces, take_run
from swin_jax.models.styleclip.directions import image_directions, mean_directions
from swin_jax.models.styleclip.relevance import Change, Survey, picture_view
from swin_jax.models.styleclip.statistics import Draws, style_statistics
from swin_jax.tasks.editing import Given
from swin_jax.tasks.style_relevance import StyleRelevance
from tests.unit.inference.editing.small import models

SURVEY = Survey(Draws(samples=50, batch_size=20), images=3, batch_size=10, save_seconds=0.0)


@functools.cache
def statistics():
    made = models()
    return style_statistics(made.generator, made.variables, SURVEY.draws)


@functools.cache
def synthesize():
    made = models()

    @jax.jit
    def features(styles):
        images = made.generator.apply(made.variables, styles, method="synthesize_styles")
        shown = picture_view(to_bytes(images) / 127.5 - 1, 16)
        return made.clip.apply(made.clip_variables, shown, method="encode_image")

    return features


def by_whole_runs(change):
    """The rows by a plain loop over channels, which changes a copy of all styles, or does not copy."""
    made, found = models(), statistics()
    styles = list(map(np.array, SURVEY.draws.styles(made.generator, made.variables, SURVEY.images)))
    rows = []
    for index, layer in enumerate(made.generator.style_layers()):
        for channel in range(0 if layer.is_rgb else layer.channels):
            codes = styles if change.cumulative else [style.copy() for style in styles]
            mean, deviation = found.means[index][channel], found.deviations[index][channel]
            if change.form == "code":
                codes[index][:, channel] = mean
            sides = []
            for sign in (-1, 1):
                moved = [code.copy() for code in codes]
                moved[index][:, channel] += sign * change.alpha * deviation
                sides.append(np.asarray(synthesize()(tuple(moved))))
            rows.append(np.stack(sides, axis=1))
    return image_directions(np.stack(rows))


def run(folder, change=Change(), survey=SURVEY):  # noqa: B008
    survey = Survey(survey.draws, survey.images, change, survey.batch_size, save_seconds=survey.save_seconds)
    folder.mkdir(exist_ok=True)
    return measure(models(), statistics(), survey, folder, {"change": str(change)}, show=False)


@pytest.mark.parametrize(
    "change", [Change(), Change(form="paper", alpha=3.0), Change(cumulative=True)], ids=["code", "paper", "cumulative"]
)
def test_from_the_changed_layer_on_is_as_whole_runs(change, tmp_path):
    found, expected = run(tmp_path, change), by_whole_runs(change)
    assert found.shape == expected.shape == (24, 8)
    # A rounding to bytes that falls the other way moves a feature a little.
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_the_bug_of_the_script_changes_the_numbers(tmp_path):
    assert np.abs(by_whole_runs(Change()) - by_whole_runs(Change(cumulative=True))).max() > 0.05


def test_killed_and_resumed_gives_the_same_bits(tmp_path, monkeypatch):
    whole = run(tmp_path / "a")
    for stop in (4, 9):
        calls = 0

        def killed(self, piece, measured=relevance.Measure.__call__, stop=stop):
            nonlocal calls
            calls += 1
            if calls > stop:
                raise KeyboardInterrupt
            return measured(self, piece)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(relevance.Measure, "__call__", killed)
            run(tmp_path / "b")
    assert (tmp_path / "b" / relevance.PART).is_file()
    done, _ = relevance._read_part(tmp_path / "b" / relevance.PART, '{"change": "' + str(Change()) + '"}')
    assert done >= 9
    np.testing.assert_array_equal(run(tmp_path / "b"), whole)


def test_what_was_saved_with_other_settings_is_not_gone_on_with(tmp_path):
    run(tmp_path)
    assert relevance._read_part(tmp_path / relevance.PART, "another") == (0, None)
    (tmp_path / relevance.PART).write_bytes(b"cut off")
    assert relevance._read_part(tmp_path / relevance.PART, "another") == (0, None)


def test_pieces_cover_all_channels_in_all_pictures():
    seen = np.zeros((24, 3), int)
    for piece in pieces(models().generator, 3, 5):
        seen[piece.row : piece.row + piece.count, piece.image] += 1
    assert (seen == 1).all()


def test_a_folder_of_statistics_is_computed_once_and_read_again(tmp_path, monkeypatch):
    found, rows = compute(models(), tmp_path, SURVEY, show=False)
    assert {path.name for path in tmp_path.iterdir()} == {"S_mean_std", "fs3.npy", "statistics.json"}
    monkeypatch.setattr(relevance, "measure", None)
    again, same = compute(models(), tmp_path, SURVEY, show=False)
    np.testing.assert_array_equal(same, rows)
    for one, other in zip((*again.means, *again.deviations), (*found.means, *found.deviations), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(UserError, match="other settings"):
        compute(models(), tmp_path, Survey(SURVEY.draws, images=4, batch_size=10), show=False)
    made = models()
    other = jax.tree.map(lambda leaf: leaf + 1, made.variables)
    with pytest.raises(UserError, match="another generator"):
        files.read_folder(tmp_path, made.generator, other, made.clip_variables)


def test_what_a_run_of_the_loop_has_summed_up_is_taken(tmp_path, monkeypatch):
    made = models()
    networks = Given(made.generator, made.variables), Given(made.clip, made.clip_variables)
    task = StyleRelevance(*networks, SURVEY, batch_size=10)
    checksum = weights_checksum(jax.tree.map(np.asarray, task.load_frozen()))
    sums = np.random.default_rng(0).normal(size=(24, 8)).astype(np.float32)
    meta = {"step": task.steps, "frozen": {"sha256": checksum}}
    run = [sums, meta]
    monkeypatch.setattr(relevance.checkpoint, "exists", lambda path: bool(run))
    monkeypatch.setattr(relevance.checkpoint, "load_params", lambda path: ({"sums": run[0]}, None, run[1]))
    meta["step"] = task.steps - 1
    with pytest.raises(UserError, match="is at step 8 of 9: give the same command without --edit to finish it"):
        take_run(task, made, tmp_path, str(tmp_path / "statistics"))
    meta |= {"step": task.steps, "frozen": {"sha256": "another"}}
    with pytest.raises(UserError, match="was measured with other weights or settings"):
        take_run(task, made, tmp_path, str(tmp_path / "statistics"))
    meta["frozen"] = {"sha256": checksum}
    take_run(task, made, tmp_path, str(tmp_path / "statistics"))
    run.clear()  # the run is not looked at again
    found, rows = compute(made, str(tmp_path / "statistics"), SURVEY, show=False)
    np.testing.assert_array_equal(rows, mean_directions(sums))
    np.testing.assert_array_equal(found.means[0], statistics().means[0])
