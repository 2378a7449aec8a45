"""The launcher's --edit, from pictures, latents or seeds to files, with a stub in the place of a method."""

import csv
import dataclasses
import functools
import json

import jax
import ml_collections
import numpy as np
import pytest
from PIL import Image

from swin_jax.core.config import spec
from swin_jax.core.errors import UserError
from swin_jax.data.video.encode import encode_png
from swin_jax.evals.samples import to_bytes
from swin_jax.inference.editing import action
from swin_jax.inference.editing.edits import NO_CHANNEL, Axis, Edited
from tests.editing import networks

CHOSEN = (("b4/conv1", 0, 1.5), ("b8/conv0", 2, -0.25))
WORK: list[str] = []  # what stubs did, in order


@dataclasses.dataclass(frozen=True)
class Shift:
    """An editor that adds to the first channel of S, or to all of W+."""

    space: str = "s"
    missing: str = ""

    def check(self):
        if self.missing:
            raise UserError(f"give --config.{self.missing}=FILE_OR_WORKDIR")

    def load(self, workdir):
        WORK.append("editor")
        return LoadedShift(self, networks()["generator"])


@dataclasses.dataclass(frozen=True)
class LoadedShift:
    editor: Shift
    given: object
    axes = (Axis("alpha", (-2.0, 0.0, 2.0)), Axis("beta", (0.1, 0.5)))
    method, text = "shift", "a face: with glasses?"

    generator = property(lambda self: self.given.model)
    variables = property(lambda self: self.given.variables)

    def edit(self, ws, alpha=3.0, beta=0.1):
        WORK.append(f"edit {len(ws)}")
        moved = ws + alpha if self.editor.space == "w" else ws
        first, *others = _styles()(self.variables, moved)
        chosen, note = (CHOSEN,) * len(ws), ""
        if beta > 0.4:
            chosen, note = ((),) * len(ws), NO_CHANNEL
        elif self.editor.space == "s":
            first = first.at[:, 0].add(alpha)
        styles = tuple(np.asarray(style) for style in (first, *others))
        return Edited(styles, np.asarray(moved) if self.editor.space == "w" else None, chosen, note)


@functools.cache
def _styles():
    return jax.jit(functools.partial(networks()["generator"].model.apply, method="styles"))


@dataclasses.dataclass(frozen=True)
class Means:
    """An inverter of pictures of 8 pixels: every entry of a latent is the mean of the picture."""

    missing: str = ""

    def check(self):
        if self.missing:
            raise UserError(f"give --config.{self.missing}=FILE_OR_WORKDIR")

    def load(self, generator, variables):
        WORK.append("inverter")
        return LoadedMeans(generator)


@dataclasses.dataclass(frozen=True)
class LoadedMeans:
    generator: object
    image_size = 8

    def invert(self, images):
        shape = (len(images), self.generator.num_ws, self.generator.w_dim)
        return np.broadcast_to(images.mean((1, 2, 3), keepdims=True)[..., 0] / 255, shape).astype(np.float32)


def config(invert=None, **editor):
    given = dict(edit=spec(Shift, **editor), edit_batch_size=2)
    return ml_collections.ConfigDict(given | ({"invert": invert} if invert else {}))


def run(workdir, what, **settings):
    WORK.clear()
    assert action.prepare(config(**settings), str(workdir), str(what))() == 0
    return workdir / "edits" / "a_face_with_glasses"


def refused(match, *arguments, **settings):
    WORK.clear()
    with pytest.raises(UserError, match=match) as error:
        action.prepare(config(**settings), "workdir", str(arguments[0]))()
    assert "\n" not in str(error.value)
    return WORK


def picture_of(ws, alpha):
    """What the generator draws, by another way than the action's."""
    given = networks()["generator"]
    first, *others = given.model.apply(given.variables, ws[None], method="styles")
    styles = (first.at[:, 0].add(alpha), *others)
    return np.asarray(to_bytes(given.model.apply(given.variables, styles, method="synthesize_styles")))[0]


@pytest.fixture(scope="module")
def of_seeds(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("seeds")
    return run(workdir, "seeds:4,0-1"), list(WORK)


def test_edits_of_seeds_lie_in_a_folder_of_the_text(of_seeds, capsys):
    folder, _ = of_seeds
    names = {path.name for path in folder.iterdir()}
    expected = {f"seed{i}{suffix}" for i in (0, 1, 4) for suffix in (".png", ".npz", ".csv")}
    (video,) = names - expected - {"before_after.png", "alpha_beta.png", "text.txt"}
    assert names >= expected and video in ("alpha.mp4", "alpha.gif")
    assert (folder / "text.txt").read_text() == LoadedShift.text


def test_the_picture_is_that_of_the_latent_beside_it(of_seeds):
    folder, _ = of_seeds
    for seed in (0, 1, 4):
        latents = np.load(folder / f"seed{seed}.npz")
        assert latents["ws"].shape == (4, 8) and "edited_ws" not in latents
        pixels = np.asarray(Image.open(folder / f"seed{seed}.png")).astype(int)
        assert np.abs(pixels - picture_of(latents["ws"], 3.0)).max() <= 1
        layers = networks()["generator"].model.style_layers()
        assert [latents[f"style_{i}"].shape for i in range(len(layers))] == [(layer.channels,) for layer in layers]
    z = np.random.RandomState(4).randn(1, 8).astype(np.float32)
    given = networks()["generator"]
    ws = given.model.apply(given.variables, z, method="map")[0]
    np.testing.assert_allclose(np.load(folder / "seed4.npz")["ws"], ws, atol=1e-5)


def test_channels_are_listed_beside_every_picture(of_seeds):
    folder, _ = of_seeds
    rows = list(csv.reader((folder / "seed1.csv").read_text().splitlines()))
    assert rows == [["layer", "channel", "weight"], ["b4/conv1", "0", "1.5"], ["b8/conv0", "2", "-0.25"]]


def test_batches_have_one_size(of_seeds):
    _, work = of_seeds
    assert work[:3] == ["editor", "edit 2", "edit 2"]  # three seeds


def test_the_sheet_runs_over_both_axes_and_marks_what_has_no_channel(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(action.sheets, "draw_grid", lambda path, cells, columns, title: drawn.update(grid=cells))
    monkeypatch.setattr(action.sheets, "draw_pairs", lambda path, *rest: drawn.update(pairs=rest))
    monkeypatch.setattr(action.sheets, "write_video", lambda *video: drawn.update(video=video) or "alpha.gif")
    run(tmp_path, "seeds:0")
    texts = [text for _, text in drawn["grid"]]
    assert texts[:3] == ["beta 0.1  alpha -2", "beta 0.1  alpha 0", "beta 0.1  alpha 2"]
    assert texts[3:] == [f"beta 0.5  alpha {alpha}  no channel" for alpha in (-2, 0, 2)]
    pictures = [picture for picture, _ in drawn["grid"]]
    np.testing.assert_array_equal(pictures[3], pictures[1])  # unedited
    assert np.any(pictures[0] != pictures[2])
    _, name, frames = drawn["video"]
    assert name == "alpha" and len(frames) == 25
    np.testing.assert_array_equal(frames[0], pictures[0])
    np.testing.assert_array_equal(frames[-1], pictures[2])
    names, pairs, headings, title = drawn["pairs"]
    assert list(names) == ["seed0"] and headings == ["before", "after"] and title == "a face: with glasses? (shift)"
    np.testing.assert_array_equal(pairs[0][0], pictures[1])


def test_pictures_are_inverted_and_edited_in_w(tmp_path):
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    Image.fromarray(np.full((20, 20, 3), 51, np.uint8)).save(photos / "a.jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)).save(photos / "more" / "b.png")
    (photos / "more" / "b.json").write_text(json.dumps([[12, 14], [28, 14], [20, 22], [14, 30], [26, 30]]))
    folder = run(tmp_path, photos, invert=spec(Means), space="w")
    latents = np.load(folder / "a.npz")
    np.testing.assert_allclose(latents["ws"], np.full((4, 8), 0.2), atol=2e-3)
    np.testing.assert_allclose(latents["edited_ws"], latents["ws"] + 3, atol=1e-5)
    assert (folder / "more" / "b.png").is_file() and (folder / "more" / "b.csv").is_file()
    assert WORK[:3] == ["editor", "inverter", "edit 2"]
    again = run(tmp_path / "again", folder / "a.npz", space="w")
    np.testing.assert_array_equal(np.load(again / "a.npz")["ws"], latents["ws"])


# ---- what is refused, and when ----


def test_what_is_missing_is_named_before_anything_is_read(tmp_path):
    (tmp_path / "a.png").write_bytes(encode_png(np.zeros((8, 8, 3), np.uint8)))
    assert refused("give --config.generator=FILE_OR_WORKDIR", tmp_path, missing="generator") == []
    assert refused("give --config.e4e=FILE_OR_WORKDIR", tmp_path, invert=spec(Means, missing="e4e")) == []
    assert refused("holds pictures, and this experiment has no `invert`", tmp_path) == []


def test_pictures_that_cannot_be_used_are_told_before_anything_is_read(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "wide.png")
    assert refused("wide.png is 30 x 20: faces are aligned squares", tmp_path, invert=spec(Means)) == []


def test_an_experiment_that_edits_nothing_says_so():
    with pytest.raises(UserError, match="this experiment edits nothing; --edit is for those of experiments/styleclip"):
        action.prepare(ml_collections.ConfigDict({"task": {}}), "workdir", "seeds:0")


@pytest.mark.parametrize("name", ["before_after", "alpha_beta"])
def test_a_latent_that_is_called_as_a_sheet_is_refused(tmp_path, name):
    np.save(tmp_path / f"{name}.npy", np.zeros((1, 4, 8), np.float32))
    refused(f"{name} is what a sheet beside the edits is called: rename", tmp_path)


@pytest.mark.parametrize("name", ["before_after", "alpha_beta"])
def test_a_picture_that_is_called_as_a_sheet_is_refused_before_its_latents_are_looked_for(tmp_path, name):
    Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    work = refused(f"{name} is what a sheet beside the edits is called: rename", tmp_path, invert=spec(Means))
    assert work == ["editor"]


@pytest.mark.parametrize("link", [False, True])
def test_a_file_in_the_place_of_the_edits_is_told_before_the_work(tmp_path, link):
    for name, work in (("edits", []), ("edits/a_face_with_glasses", ["editor"])):
        path = tmp_path / str(len(work)) / name
        path.parent.mkdir(parents=True)
        path.symlink_to("nowhere") if link else path.write_text("notes")
        WORK.clear()
        with pytest.raises(UserError, match=f"{name} cannot be used: it is a (file|link to nowhere)"):
            action.prepare(config(), str(tmp_path / str(len(work))), "seeds:0")()
        assert WORK == work


def test_edits_are_not_written_into_the_checkpoints_of_a_run(tmp_path):
    for name in ("config.json", "header.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=f"inside the checkpoints of a run, whose workdir is {tmp_path};"):
        action.prepare(config(), str(tmp_path / "checkpoints/2"), "seeds:0")


def test_latents_of_another_generator_are_not_edited(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1, 18, 512), np.float32))
    assert refused(r"\[1, 18, 512\], and the generator's are \(n, 4, 8\)", tmp_path) == ["editor"]


def test_a_text_is_a_folder_whatever_it_holds():
    assert action.slug("../../a face, with glasses!") == "a_face_with_glasses"
    assert action.slug("???") == "edit" and len(action.slug("long " * 100)) <= 80
    for letter in ("a", "ü", "笑", "𠮷"):
        name = action.slug(letter * 300)
        assert set(name) == {letter} and len(name.encode()) <= 200


def test_texts_of_one_name_have_a_folder_each(tmp_path):
    """The edits to the second one took the place of those to the first, without a word."""
    texts = ["a face, with glasses?", "a face with glasses", "a face - with glasses", "a face, with glasses?"]
    folders = []
    for text in texts:
        folders.append(action._folder(tmp_path, text))
        folders[-1].mkdir(parents=True, exist_ok=True)
        (folders[-1] / "text.txt").write_bytes(action._encoded(text))
    assert folders[0] == tmp_path / "edits/a_face_with_glasses" == folders[3]
    assert len(set(folders)) == 3 and all(f.name.startswith("a_face_with_glasses") for f in folders)
    assert action._folder(tmp_path, texts[1]) == folders[1]


def test_what_is_no_utf8_in_a_text_is_kept(tmp_path):
    assert action._encoded("a\udcff") == b"a\xff" and action._folder(tmp_path, "a\udcff").name == "a"
