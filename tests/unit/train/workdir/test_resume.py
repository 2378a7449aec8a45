"""What a resumed run may change."""

import json
import types

import pytest
from etils import epath
from ml_collections import ConfigDict

from swin_jax.core.errors import UserError
from swin_jax.data import sources
from swin_jax.data.image_text import lists
from swin_jax.data.labels import Relabeled
from swin_jax.data.subsets import Selection
from swin_jax.train import checkpoint
from swin_jax.train.workdir import resume


def test_colors_and_checks_of_labels_may_change(tmp_path):
    """At any depth: no result depends on them."""
    values = dict(palette="", data=dict(source=dict(root="a", palette="", check=True, split="train")))
    resume.save(ConfigDict(values), epath.Path(tmp_path))
    values["palette"] = values["data"]["source"]["palette"] = "colors.txt"
    values["data"]["source"]["check"] = False
    assert len(resume.check_resume(ConfigDict(values), epath.Path(tmp_path))) == 3
    values["data"]["source"]["split"] = "val"
    with pytest.raises(UserError, match="trained with another config: data.source.split"):
        resume.check_resume(ConfigDict(values), epath.Path(tmp_path))


NAMES = ("cat/0.png", "cat/1.png", "cow/0.png", "cow/1.png")


def data_of(root="photos", names=NAMES, wrap=lambda source: source):
    return types.SimpleNamespace(source=wrap(sources.FileSource(root, names, (0, 0, 1, 1), ("cat", "cow"))))


def test_records_are_known_by_their_names_below_the_folder():
    found = resume.fingerprint(data_of())
    assert found["number"] == 4 and found == resume.fingerprint(data_of("/elsewhere/photos_2024"))
    renamed = tuple(name.replace("/", "/IMG_") for name in NAMES)
    others = {resume.fingerprint(data)["sha256"] for data in (data_of(names=renamed), data_of(names=NAMES[::-1]))}
    assert len({*others, found["sha256"]}) == 3
    assert found == resume.fingerprint(data_of(wrap=lambda source: Relabeled(source, (1, 0), ("cow", "cat"))))
    assert found == resume.fingerprint(data_of(wrap=lambda source: Selection(source, (0, 1, 2, 3))))
    assert found != resume.fingerprint(data_of(wrap=lambda source: Selection(source, (0, 1, 2, 2))))
    assert resume.fingerprint(types.SimpleNamespace(batch_size=8)) == {}


def test_a_large_set_is_known_by_some_of_its_names(monkeypatch):
    """A million names are not all asked for: those of tar shards lie in the shards."""
    asked, name_of = [], sources.FileSource.record_name
    monkeypatch.setattr(sources.FileSource, "record_name", lambda *args: asked.append(args) or name_of(*args))
    names = tuple(f"{i % 2}/{i}.png" for i in range(30_001))
    found = resume.fingerprint(types.SimpleNamespace(source=sources.FileSource("a", names, (), ())))
    assert found["number"] == 30_001 and 5_000 < len(asked) <= 10_000


def test_pairs_of_a_list_are_known_by_its_images(tmp_path):
    """Its records are called by their lines."""
    found = []
    for folder, names in (("one", "abc"), ("two", "abc"), ("three", "acb")):
        (tmp_path / folder).mkdir()
        rows = [json.dumps({"image": f"{name}.png", "text": "a word"}) for name in names]
        for name in names:
            (tmp_path / folder / f"{name}.png").touch()
        (tmp_path / folder / "list.jsonl").write_text("\n".join(rows) + "\n")
        source = lists.jsonl(str(tmp_path / folder / "list.jsonl"))
        found.append(resume.fingerprint(types.SimpleNamespace(source=source)))
    assert found[0] == found[1] != found[2]


def test_a_run_does_not_resume_on_renamed_records(monkeypatch):
    """What is held back by name was others, on which the first part had trained."""
    renamed, folder = data_of(names=tuple(f"{name[:3]}/{name[:3]}_{name[4:]}" for name in NAMES)), epath.Path("run")
    saved = [resume.fingerprint(data_of())]
    monkeypatch.setattr(checkpoint, "saved_records", lambda workdir: saved[0])
    resume.check_records(data_of("/moved"), folder, True)
    for allowed in ((), ("data.transform", "seed", "data.sour")):
        with pytest.raises(UserError, match="names or order differ.*to resume anyway: --allow_change=data.source$"):
            resume.check_records(renamed, folder, True, allowed)
    for allowed in ("data", "data.source", "data.source.seed", "num_train"):
        resume.check_records(renamed, folder, True, [allowed])
    with pytest.warns(UserWarning, match="may have been trained on"):
        resume.check_records(renamed, folder, False)
    saved[0] = {}  # of an older version
    resume.check_records(renamed, folder, True)


def test_an_evaluation_tells_what_it_measures_otherwise_and_refuses_nothing(tmp_path):
    data = dict(source=dict(root="a", conversion="display"), batch_size=8, num_workers=2)
    values = dict(evals=dict(val=dict(every=5, run=dict(data=data))), task=dict(mean=0.5), total_steps=9, seed=0)
    workdir = epath.Path(tmp_path)
    assert resume.evaluation_changes(ConfigDict(values), workdir) == []
    resume.save(ConfigDict(values), workdir)
    values["evals"]["val"]["every"], values["total_steps"], values["seed"] = 1, 0, 1
    data.update(batch_size=4, num_workers=0)
    assert resume.evaluation_changes(ConfigDict(values), workdir) == []
    data["source"].update(root="b", conversion="reference")
    values["task"]["mean"] = 0.4
    assert resume.evaluation_changes(ConfigDict(values), workdir) == [
        "evals.val.run.data.source.conversion: display -> reference",
        "evals.val.run.data.source.root: a -> b",
        "task.mean: 0.5 -> 0.4",
    ]
    (workdir / "config.json").write_text("{")
    (line,) = resume.evaluation_changes(ConfigDict(values), workdir)
    assert line.startswith("not known, ")
