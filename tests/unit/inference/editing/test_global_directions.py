"""Global directions: from texts to channels, and from channels to edited latents."""

import dataclasses
import functools
import logging

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.data.image_text import tokenizer
from swin_jax.data.image_text.tokenizer import tokenize
from swin_jax.evals.prompts.templates import IMAGENET_79, IMAGENET_80
from swin_jax.inference.editing import relevance, statistics
from swin_jax.inference.editing.edits import NO_CHANNEL
from swin_jax.inference.editing.global_directions import (
    GlobalDirections,
    GlobalEditor,
    LoadedGlobalEditor,
    Wish,
    open_directions,
)
from swin_jax.models.styleclip.directions import NoChannel
from swin_jax.models.styleclip.relevance import Survey
from swin_jax.models.styleclip.statistics import Draws, Statistics, style_statistics
from swin_jax.pretrained.preparation import attach
from swin_jax.pretrained.preparations.published import of_pairs
from swin_jax.tasks.editing import Given
from swin_jax.tasks.style_relevance import StyleRelevance
from tests.unit.inference.editing.small import LENGTH, models

SURVEY = Survey(Draws(samples=20), images=2, batch_size=16)
tokens = functools.partial(tokenize, context_length=LENGTH)


@functools.cache
def directions():
    """With relevances that are drawn, so that nothing is compiled but the networks."""
    widths = [layer.channels for layer in models().generator.style_layers()]
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(24, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    deviations = tuple(rng.uniform(0.5, 2, width).astype(np.float32) for width in widths)
    found = Statistics(tuple(np.zeros(width, np.float32) for width in widths), deviations)
    return GlobalDirections(models(), found, rows, IMAGENET_79, tokens)


@functools.cache
def latents():
    return np.random.default_rng(1).normal(size=(3, models().generator.num_ws, 8)).astype(np.float32)


def styles():
    made = models()
    return made.generator.apply(made.variables, latents(), method="styles")


def test_the_released_code_leaves_one_template_out():
    assert len(set(IMAGENET_79)) == 79 and set(IMAGENET_80) - set(IMAGENET_79) == {"a photo of many {}."}
    assert "a photo of one {}." in IMAGENET_79


@pytest.mark.parametrize("templates", [IMAGENET_79, IMAGENET_80], ids=len)
def test_features_of_a_text_are_the_mean_over_its_prompts(templates):
    made = models()
    found = dataclasses.replace(directions(), templates=templates).features("a red face")
    ids = tokenize([text.replace("{}", "a red face") for text in templates], LENGTH)
    rows = np.asarray(made.clip.apply(made.clip_variables, ids, method="encode_text"))
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = rows.mean(axis=0) / np.linalg.norm(rows.mean(axis=0))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_edit_moves_the_chosen_channels_by_their_deviations(caplog):
    wish = Wish("a smiling face", alpha=2.0, beta=0.4)
    with caplog.at_level(logging.INFO):
        found = dataclasses.replace(directions()).edit(latents(), [wish])
    assert f"the texts are {directions().distance(wish):.4f} apart" in caplog.text
    relevances = directions().relevances(wish)
    selected = np.where(np.abs(relevances) >= 0.4, relevances / np.abs(relevances).max(), 0)
    assert 0 < (selected != 0).sum() < 24
    layers, row = models().generator.style_layers(), 0
    for layer, before, after, deviation in zip(layers, styles(), found.styles, directions().statistics.deviations):
        step = np.zeros(layer.channels)
        if not layer.is_rgb:
            step, row = 2 * selected[row : row + layer.channels] * deviation, row + layer.channels
        np.testing.assert_allclose(after - before, np.broadcast_to(step, after.shape), atol=1e-5)
    assert found.ws is None and found.note == "" and len(found.chosen) == 3
    weights = [weight for _, _, weight in found.chosen[0]]
    assert abs(weights[0]) == pytest.approx(2) and sorted(weights, key=abs, reverse=True) == weights


def test_a_batch_equals_single_edits_and_the_opposite_undoes_it():
    wish = Wish("a smiling face", beta=0.3)
    together = directions().edit(latents(), [wish]).styles
    for row in range(3):
        alone = directions().edit(latents()[row : row + 1], [wish]).styles
        for one, other in zip(alone, together):
            np.testing.assert_allclose(one[0], other[row], atol=1e-5)
    both = directions().edit(latents(), [wish, dataclasses.replace(wish, alpha=-wish.alpha)])
    assert both.chosen == ((), (), ())
    for one, other in zip(both.styles, styles()):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_several_texts_add_up_and_each_row_may_have_its_own():
    wishes = [Wish("a smiling face", alpha=1.0, beta=0.3), Wish("an old man", "a man", alpha=-3.0, beta=0.2)]
    both = directions().edit(latents(), wishes).styles
    alone = [directions().edit(latents(), [wish]).styles for wish in wishes]
    for start, one, other, sum_ in zip(styles(), *alone, both):
        np.testing.assert_allclose(one + other - start, sum_, atol=1e-5)
    each = directions().edit_each(latents()[:2], wishes)
    for i, expected in enumerate(alone):
        np.testing.assert_allclose(each.styles[0][i], expected[0][i], atol=1e-5)
    assert each.chosen[0] != each.chosen[1]
    with pytest.raises(UserError, match="3 latents have as many texts, not 2"):
        directions().edit_each(latents(), wishes)


def test_a_threshold_is_chosen_by_the_number_of_channels():
    wish = Wish("a smiling face", channels=5)
    sizes = np.abs(directions().relevances(wish))
    beta = directions().beta(wish)
    assert (sizes >= beta).sum() > 5 and (beta == 0.29 or (sizes >= beta + 0.01).sum() <= 5)


def test_a_bare_latent_is_one_and_the_log_says_so(caplog):
    wish = Wish("a smiling face", beta=0.3)
    with caplog.at_level(logging.INFO):
        found = directions().edit(latents()[1], [wish])
    assert "(4, 8) is read as one latent, not as 4" in caplog.text and len(found.chosen) == 1
    np.testing.assert_allclose(found.styles[0][0], directions().edit(latents(), [wish]).styles[0][1], atol=1e-5)
    with pytest.raises(UserError, match=r"W\+ is \(B, 4, 8\)"):
        directions().edit(latents()[:, :3], [wish])


def test_pixels_are_those_that_the_clip_takes(tmp_path, monkeypatch):
    made = models()
    clip = attach(made.clip.clone(), of_pairs(16, LENGTH, False).replace(mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5)))
    surveys = []
    monkeypatch.setattr(relevance, "compute", lambda models, folder, survey, show: (surveys.append(survey), None))
    open_directions((made.generator, made.variables), (clip, made.clip_variables), tmp_path)
    assert surveys == [Survey(mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))]


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_text_is_refused(text):
    with pytest.raises(UserError, match="give texts that say something"):
        directions().edit(latents(), [Wish(text)])


# ---- the editor of an experiment ----


def editor(**fields):
    made = models()
    networks = Given(made.generator, made.variables), Given(made.clip, made.clip_variables)
    return GlobalEditor(StyleRelevance(*networks, SURVEY, batch_size=10), **{"text": "a smiling face"} | fields)


def loaded(**fields):
    fields = {"beta": (0.4,)} | fields
    made = editor(**fields)
    return LoadedGlobalEditor(directions(), tuple(made.wishes()), ())


def test_a_beta_without_channels_is_an_error_but_marked_in_a_grid():
    with pytest.raises(NoChannel, match=r"beta=0.99 selects no channel: the largest that selects one is 0\.\d+"):
        loaded(beta=(0.99,)).edit(latents())
    cell = loaded().edit(latents(), alpha=3.0, beta=0.99)
    assert cell.note == NO_CHANNEL and cell.chosen == ((), (), ())
    for one, other in zip(cell.styles, styles()):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert loaded().edit(latents(), alpha=3.0, beta=0.3).note == ""


def test_alpha_of_a_sheet_takes_the_place_of_the_own():
    own = loaded(alpha=(3.0,)).edit(latents()).styles
    other = loaded(alpha=(1.0,)).edit(latents(), alpha=3.0).styles
    np.testing.assert_array_equal(own[0], other[0])


def test_texts_are_separated_and_share_numbers_or_have_their_own():
    found = editor(text="an old face| a smiling face", alpha=(2.0, 3.0), beta=(0.1,)).wishes()
    assert [(wish.text, wish.neutral, wish.alpha, wish.beta) for wish in found] == [
        ("an old face", "a face", 2.0, 0.1),
        ("a smiling face", "a face", 3.0, 0.1),
    ]
    assert editor().wishes()[0].beta is None
    with pytest.raises(UserError, match=r"alpha=\(1.0, 2.0\) has 2 entries, 1 texts"):
        editor(alpha=(1.0, 2.0))
    with pytest.raises(UserError, match="text='a face |' is empty"):
        editor(text="a face |")
    with pytest.raises(UserError, match="templates='81'"):
        editor(templates="81")


def test_missing_statistics_are_named_with_their_flag(tmp_path):
    with pytest.raises(UserError, match=r"--config.statistics=.*no fs3.npy and no S_mean_std"):
        editor(statistics=str(tmp_path)).check()


def test_a_text_without_tokens_is_told_before_statistics_are_computed(monkeypatch):
    """A vocabulary that is missing was named after them, and a folder of edits stayed behind."""
    editor(text="hair").check()
    for fields in ({"text": f"hair|{'long ' * 80}hair"}, {"neutral": "long " * 80}):
        with pytest.raises(UserError, match="tokens with start and end, more than"):
            editor(**fields).check()

    def missing():
        raise UserError("CLIP's vocabulary is missing")

    monkeypatch.setattr(tokenizer, "vocabulary", missing)
    with pytest.raises(UserError, match="vocabulary is missing"):
        editor(text="zyxqv").check()  # of which no tokens are remembered


def test_statistics_are_computed_into_the_workdir_and_serve_as_a_folder(tmp_path, monkeypatch):
    first = editor().load(str(tmp_path))
    assert [axis.name for axis in first.axes] == ["alpha", "beta"] and first.text == "a smiling face"
    edited = first.edit(latents()[:1], beta=0.05)
    assert edited.note == "" and edited.chosen[0]
    monkeypatch.setattr(relevance, "measure", None)
    again = editor(statistics=str(tmp_path / "statistics")).load("elsewhere")
    np.testing.assert_array_equal(again.directions.relevance, first.directions.relevance)
    made = models()
    networks = (made.generator, made.variables), (made.clip, made.clip_variables)
    opened = open_directions(*networks, tmp_path / "statistics", tokenize=tokens)
    np.testing.assert_array_equal(opened.relevance, first.directions.relevance)


def test_statistics_of_another_generator_are_refused(tmp_path):
    made = models()
    found = style_statistics(made.generator, made.variables, Draws(samples=100))
    statistics.write_moments(tmp_path, Statistics(tuple(mean + 1 for mean in found.means), found.deviations))
    np.save(tmp_path / "fs3.npy", np.eye(24, 8, dtype=np.float32))
    with pytest.raises(UserError, match="the statistics are of another generator"):
        editor(statistics=str(tmp_path)).load("elsewhere")
