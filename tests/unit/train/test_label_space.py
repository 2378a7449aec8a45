"""One label space for a run: training data, evaluations, checkpoint and first weights, by name."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from swin_jax.core.config import spec
from swin_jax.core.errors import UserError
from swin_jax.data.labels import Marked, Relabeled
from swin_jax.data.pipeline import EvalData, TrainData
from swin_jax.data.segmentation.several_sizes import SeveralSizes
from swin_jax.data.segmentation.transforms import eval_transform
from swin_jax.evals.accuracy import Accuracy
from swin_jax.evals.mean_iou import MeanIoU
from swin_jax.evals.multi_view import MultiView
from swin_jax.pretrained.segmentation.finetune import FRESH
from swin_jax.train import checkpoint
from swin_jax.train.init_from import Frozen, InitFrom
from swin_jax.train.label_space import share_labels, weights_classes

ANIMALS = ("ant", "cow", "dog")


@dataclasses.dataclass(frozen=True)
class Named:
    """Records of one label each, in the order of the classes."""

    class_names: tuple[str, ...]
    key: str = "image"

    def __len__(self):
        return len(self.class_names)

    def __getitem__(self, index):
        return {self.key: np.zeros((2, 2, 3), np.uint8), "label": index}

    def record_name(self, index):
        return f"record {index}"


class Logits:
    predicts = "logits"


class Features:
    predicts = "features"


def same(example, rng=None):
    return {**example, "label": np.int32(example["label"])}


def train(names, classes=0):
    return TrainData(Named(names), same, 2, num_threads=0, expected_classes=classes)


def evaluated(names, classes=0):
    return EvalData(Named(names), same, 2, num_threads=0, expected_classes=classes)


def config(total_steps=1, **init_from):
    return ConfigDict(dict(total_steps=total_steps, init_from=spec(InitFrom, **init_from)))


def saved(folder, monkeypatch, names):
    """A workdir whose checkpoint says these names."""
    monkeypatch.setattr(checkpoint, "exists", lambda workdir: str(workdir) == str(folder))
    monkeypatch.setattr(checkpoint, "class_names", lambda workdir: names)
    return folder


def labels(data):
    """The label of each record, as the batches of an evaluation have it."""
    batches = data.batches(len(data.source), range(len(data.source)))
    return next(batches)["label"].tolist()


@pytest.mark.parametrize("evaluation", [Accuracy, MultiView], ids=lambda x: x.__name__)
def test_an_evaluation_in_another_order_is_mapped(tmp_path, evaluation):
    evals = {"val": evaluation(evaluated(("dog", "ant", "cow")))}
    _, found, lines = share_labels(config(), tmp_path, Logits(), train(ANIMALS), evals)
    assert labels(found["val"].data) == [2, 0, 1] and found["val"].data.class_names == ANIMALS
    assert len(lines) == 1 and "'val'" in lines[0]


@pytest.mark.parametrize("steps", [0, 3])
def test_classes_of_an_evaluation_that_differ_are_refused(tmp_path, steps):
    for names, word in ((("Cow", "ant", "dog"), "'Cow'"), ((*ANIMALS, "elk"), "'elk'"), (("elk",), "'elk'")):
        evals = {"val": Accuracy(evaluated(names, 3))}
        with pytest.raises(UserError, match=f"'val'.*training data.*{word}") as error:
            share_labels(config(steps), tmp_path, Logits(), train(ANIMALS, 3), evals)
        assert "num_classes" not in str(error.value)  # what leads in a circle


def test_an_evaluation_may_have_some_of_the_classes(tmp_path):
    evals = {"val": Accuracy(evaluated(("dog", "cow"), 3))}
    _, found, lines = share_labels(config(), tmp_path, Logits(), train(ANIMALS, 3), evals)
    assert labels(found["val"].data) == [2, 1] and "2 of the 3 classes" in lines[0]


def test_the_number_of_training_classes_names_the_one_key_to_set(tmp_path):
    with pytest.raises(UserError, match="3 classes .ant, cow, dog.*give --config.num_classes=3"):
        share_labels(config(), tmp_path, Logits(), train(ANIMALS, 1000), {})
    with pytest.raises(UserError, match="--config.num_classes=3"):
        next(train(ANIMALS, 2).batches(0, [0]))


@pytest.mark.parametrize("steps", [0, 3])
def test_a_checkpoint_decides_over_the_data(tmp_path, monkeypatch, steps):
    workdir = saved(tmp_path / "run", monkeypatch, ANIMALS)
    evals = {"val": Accuracy(evaluated(("cow", "dog")))}
    data, found, lines = share_labels(config(steps), workdir, Logits(), train(("cow", "dog", "ant"), 3), evals)
    assert labels(found["val"].data) == [1, 2]
    if steps:
        assert data.class_names == ANIMALS and [data.source[i]["label"] for i in range(3)] == [1, 2, 0]
        assert len(lines) == 2
        for names in (("cow", "dog"), ("Ant", "cow", "dog"), (*ANIMALS, "elk")):
            with pytest.raises(UserError, match="training data.*the checkpoint in"):
                share_labels(config(steps), workdir, Logits(), train(names), evals)
    with pytest.raises(UserError, match="'val'.*checkpoint in.*'elk'"):
        share_labels(config(steps), workdir, Logits(), train(ANIMALS), {"val": Accuracy(evaluated(("elk", "ant")))})


@pytest.mark.parametrize("names", [(), ("0", "1", "2")])
def test_an_older_workdir_is_compared_by_count_and_evaluations_with_the_data(tmp_path, monkeypatch, names):
    workdir = saved(tmp_path / "run", monkeypatch, names)
    evals = {"val": Accuracy(evaluated(("dog", "ant")))}
    data, found, lines = share_labels(config(3), workdir, Logits(), train(ANIMALS, 3), evals)
    assert "number" in lines[0] and labels(found["val"].data) == [2, 0] and data.class_names == ANIMALS
    if not names:
        with pytest.raises(UserError, match="3 classes.*all of its classes must be there"):
            share_labels(config(0), workdir, Logits(), train(ANIMALS, 4), {})
    else:
        with pytest.raises(UserError, match="4 classes"):
            share_labels(config(3), workdir, Logits(), train((*ANIMALS, "elk")), {})


def test_first_weights_decide_where_their_classifier_is_kept(tmp_path, monkeypatch):
    path = str(saved(tmp_path / "other", monkeypatch, ANIMALS))
    mixed = ("dog", "ant", "cow")
    for steps in (0, 3):
        data, _, lines = share_labels(config(steps, path=path), tmp_path, Logits(), train(mixed, 3), {})
        assert bool(lines) == (steps > 0) and (not steps or data.class_names == ANIMALS)
    with pytest.raises(UserError, match="the model in .*other lacks 'elk'.*init_from.backbone=True"):
        share_labels(config(path=path), tmp_path, Logits(), train(("ant", "cow", "elk"), 3), {})
    for kept in (config(path=path, backbone=True), config()):
        assert share_labels(kept, tmp_path, Logits(), train(mixed, 3), {})[0].class_names == mixed
    # A classifier of another number of classes is replaced.
    assert share_labels(config(path=path), tmp_path, Logits(), train(("a", "b"), 2), {})[0].class_names == ("a", "b")


def test_weights_of_unknown_classes_are_said_where_nothing_is_trained(tmp_path):
    file = tmp_path / "weights.pth"
    file.touch()
    *_, lines = share_labels(config(0, path=str(file)), tmp_path, Logits(), train(ANIMALS, 3), {})
    assert "not known" in lines[0] and "weights.pth" in lines[0]
    assert not share_labels(config(3, path=str(file)), tmp_path, Logits(), train(ANIMALS, 3), {})[2]


@pytest.mark.parametrize("names", [(), ("0", "1", "2")])
def test_data_without_names_does_not_take_them_from_the_checkpoint(tmp_path, monkeypatch, names):
    """The next checkpoint is saved with the names of the data."""

    @dataclasses.dataclass(frozen=True)
    class Counted(Named):
        def __len__(self):
            return 3

    workdir = saved(tmp_path / "run", monkeypatch, ANIMALS)
    data = TrainData(Counted(names), same, 2, num_threads=0, expected_classes=3)
    data, _, lines = share_labels(config(3), workdir, Logits(), data, {})
    assert (
        data.class_names == ANIMALS
        and "number" in lines[0]
        and [data.source[i]["label"] for i in range(3)] == [0, 1, 2]
    )


def test_names_beside_published_weights_map_a_part_of_their_classes(tmp_path):
    """Ten of ImageNet's thousand classes, evaluated with the published classifier as it is."""
    wnids = tuple(f"n{i:08d}" for i in range(40))
    (tmp_path / "names.txt").write_text("\n".join(wnids))
    few = ("n00000007", "n00000039")
    weights = dict(path=str(tmp_path / "weights.pth"), class_names=str(tmp_path / "names.txt"))
    evals = {"val": Accuracy(evaluated(few, 40))}
    _, found, lines = share_labels(config(0, **weights), tmp_path, Logits(), train(few, 40), evals)
    assert labels(found["val"].data) == [7, 39] and "2 of the 40 classes" in lines[0]
    # Training needs them all; without names the advice is theirs, and no other number of classes.
    with pytest.raises(UserError, match="training data lacks 'n00000000'"):
        share_labels(config(3, **weights), tmp_path, Logits(), train(few, 40), evals)
    with pytest.raises(UserError, match="init_from.class_names=FILE"):
        share_labels(config(0, path=weights["path"]), tmp_path, Logits(), train(few, 40), evals)


BESIDE = {
    "transformers": {"model_type": "swin", "id2label": {"2": "cow", "0": "dog", "1": "ant"}},
    "timm": {"architecture": "swin_tiny", "label_names": ["dog", "ant", "cow"]},
    "timm, inside": {"architecture": "swin_tiny", "pretrained_cfg": {"label_names": ["dog", "ant", "cow"]}},
}


def beside(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").touch()
    return folder, folder / "model.safetensors"


@pytest.mark.parametrize("case", BESIDE)
@pytest.mark.parametrize("steps", [0, 3])
def test_the_config_beside_weights_names_their_classes(tmp_path, case, steps):
    for path in map(str, beside(tmp_path, BESIDE[case])):
        evals = {"val": Accuracy(evaluated(ANIMALS, 3))}
        data, found, lines = share_labels(config(steps, path=path), tmp_path, Logits(), train(ANIMALS, 3), evals)
        assert labels(found["val"].data) == [1, 2, 0] and "mapped by name" in lines[0]
        assert data.class_names == (ANIMALS if not steps else ("dog", "ant", "cow"))
        assert weights_classes(config(steps, path=path), tmp_path, 3).names == ("dog", "ant", "cow")
        with pytest.raises(UserError, match="lacks 'elk'.*backbone=True; or give the names of all .*class_names=FILE"):
            other = {"val": Accuracy(evaluated(("ant", "cow", "elk"), 3))}
            share_labels(config(steps, path=path), tmp_path, Logits(), train(ANIMALS, 3), other)
        assert not share_labels(config(steps, path=path, backbone=True), tmp_path, Logits(), train(ANIMALS, 3), {})[2]


def test_a_cache_of_the_hub_names_the_classes_of_its_version(tmp_path):
    version = tmp_path / "models--a--b" / "snapshots" / "0123"
    version.mkdir(parents=True)
    beside(version, BESIDE["transformers"])
    assert weights_classes(config(0, path=str(tmp_path / "models--a--b")), tmp_path, 3).names == ("dog", "ant", "cow")


def test_classes_that_are_called_otherwise_beside_weights_are_taken_by_number_and_that_is_said(tmp_path):
    """As ImageNet's folders of synsets, with the words that transformers has for them."""
    path = str(beside(tmp_path, {"model_type": "swin", "id2label": {"0": "tench", "1": "crane", "2": "crane"}})[0])
    wnids = ("n0", "n1", "n2")
    evals = {"val": Accuracy(evaluated(wnids[1:], 3))}
    for steps in (0, 3):
        data, found, lines = share_labels(config(steps, path=path), tmp_path, Logits(), train(wnids, 3), evals)
        assert labels(found["val"].data) == [1, 2] and data.class_names == wnids
        assert "the training data calls all classes of the model" in lines[0] and "by number" in lines[0]
    # Where the training data is of other classes, which nothing is trained on.
    evals = {"val": Accuracy(evaluated(wnids, 3))}
    _, found, lines = share_labels(config(0, path=path), tmp_path, Logits(), train(("a", "b"), 3), evals)
    assert labels(found["val"].data) == [0, 1, 2] and "'val' calls all classes of the model" in lines[0]
    with pytest.raises(UserError, match="'crane' twice.*class_names=FILE"):
        share_labels(config(0, path=path), tmp_path, Logits(), train(("a", "b"), 3), {"val": Accuracy(evaluated("xy"))})
    evals = {"val": Accuracy(evaluated(("0", "2"), 3))}
    *_, found, lines = share_labels(config(0, path=path), tmp_path, Logits(), train(wnids[:2], 3), evals)
    assert labels(found["val"].data) == [0, 2] and "compared by number" in lines[0]


@pytest.mark.parametrize(
    "text",
    ['{"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}', '{"label_names": ["0", "1", "2"]}']
    + [
        '{"id2label": {"0": "a", "2": "b"}}',
        '{"id2label": 3}',
        "[]",
        "{",
        '{"task.model.fn": "swin_jax.models.swin.Swin"}',
    ],
)
def test_a_config_without_names_tells_none(tmp_path, text):
    path = str(beside(tmp_path, {})[0])
    (tmp_path / "config.json").write_text(text)
    *_, lines = share_labels(config(0, path=path), tmp_path, Logits(), train(ANIMALS, 3), {})
    assert "not known" in lines[0]


def test_a_teacher_of_other_classes_is_told(tmp_path, monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Distillation(Logits):
        teacher: object

    path = str(saved(tmp_path / "teacher", monkeypatch, ("dog", "ant", "cow")))
    for names, told in ((ANIMALS, True), (("dog", "ant", "cow"), False), (("a", "b"), False)):
        task = Distillation(Frozen(None, path))
        *_, lines = share_labels(config(), tmp_path, task, train(names), {})
        assert [line for line in lines if "task.teacher" in line] == lines and bool(lines) == told
    for path in map(str, beside(tmp_path, BESIDE["transformers"])):
        for names, told in ((ANIMALS, True), (("dog", "ant", "cow"), False), (("n0", "n1", "n2"), False)):
            *_, lines = share_labels(config(), tmp_path, Distillation(Frozen(None, path)), train(names), {})
            assert ["task.teacher" in line for line in lines] == [True] * told


def test_weights_of_classes_are_told_where_labels_are_mapped(tmp_path):
    class Weighted(Logits):
        class_weights = (1.0, 2.0, 3.0)

    path = str(beside(tmp_path, BESIDE["timm"])[0])
    for task, names, told in ((Weighted(), ANIMALS, 2), (Logits(), ANIMALS, 1), (Weighted(), ("dog", "ant", "cow"), 0)):
        *_, lines = share_labels(config(path=path), tmp_path, task, train(names, 3), {})
        assert len(lines) == told and (told < 2 or "class_weights are taken in the order of the model" in lines[1])


def test_several_labels_need_a_task_that_takes_them(tmp_path):
    marks = Marked(Named(ANIMALS), np.eye(3, dtype=np.int8))
    data = TrainData(marks, same, 2, num_threads=0)
    numbers = dict(label=jax.ShapeDtypeStruct((1,), np.int32))
    task = types.SimpleNamespace(predicts="logits", batch_shapes=lambda size: numbers)
    with pytest.raises(UserError, match="task.multi_label=True"):
        share_labels(config(), tmp_path, task, data, {})
    evals = {"val": Accuracy(EvalData(marks, same, 2, num_threads=0))}
    with pytest.raises(
        UserError, match="the evaluation 'val' have several labels: give --config.task.multi_label=True"
    ):
        share_labels(config(), tmp_path, task, train(ANIMALS), evals)
    numbers["label"] = jax.ShapeDtypeStruct((1, 3), np.int8)
    assert share_labels(config(), tmp_path, task, data, {})[0] is data


def test_sets_of_one_label_each_get_marks_for_a_task_of_several(tmp_path):
    shapes = dict(label=jax.ShapeDtypeStruct((1, 3), np.int8))
    task = types.SimpleNamespace(predicts="logits", batch_shapes=lambda size: shapes)
    evals = {"val": Accuracy(evaluated(("dog", "ant"))), "all": Accuracy(evaluated(ANIMALS))}
    data, found, lines = share_labels(config(), tmp_path, task, train(ANIMALS), evals)
    assert data.multi_label and [data.source[i]["label"].tolist() for i in range(3)] == np.eye(3).tolist()
    assert found["all"].data.multi_label and found["all"].data.source[1]["label"].tolist() == [0, 1, 0]
    # Of a class that a set does not know, none of its records says anything.
    assert [found["val"].data.source[i]["label"].tolist() for i in range(2)] == [[0, -1, 1], [1, -1, 0]]
    (line,) = lines
    assert "'val' has 2 of the 3 classes" in line


@dataclasses.dataclass(frozen=True)
class Scenes(Named):
    """Records of a label for each pixel: every class once, and a pixel without one."""

    def __getitem__(self, index):
        label = np.array([[*range(len(self.class_names)), 255]], np.uint8)
        return {"image": np.zeros((*label.shape, 3), np.uint8), "label": label}


def test_labels_of_pixels_are_shared_by_name(tmp_path, monkeypatch):
    shapes = dict(label=jax.ShapeDtypeStruct((1, 1, 4), np.uint8))
    task = types.SimpleNamespace(predicts="maps", batch_shapes=lambda size: shapes)
    data = TrainData(Scenes(ANIMALS), same, 2, num_threads=0)
    other = EvalData(Scenes(("dog", "ant", "cow")), same, 1, num_threads=0)
    _, found, lines = share_labels(config(), tmp_path, task, data, {"val": MeanIoU(other)})
    batch = next(found["val"].data.batches(1, [0]))
    assert batch["label"].tolist() == [[[2, 0, 1, 255]]] and "'val'" in lines[0]
    scale = (4, 1)
    several = {"val": MeanIoU(SeveralSizes(dataclasses.replace(other, transform=eval_transform(scale)), scale))}
    _, found, _ = share_labels(config(), tmp_path, task, data, several)
    assert next(found["val"].data.batches(1, [0]))["label"].tolist() == [[[2, 0, 1, 255]]]
    unknown = EvalData(Scenes(("elk", "ant", "cow")), same, 1, num_threads=0)
    with pytest.raises(UserError, match="'val'.*training data.*'elk'"):
        share_labels(config(), tmp_path, task, data, {"val": MeanIoU(unknown)})
    folder = saved(tmp_path / "run", monkeypatch, ("bee", "cow", "dog"))
    with pytest.raises(UserError, match="the training data.*the checkpoint in .*'ant'"):
        share_labels(config(), folder, task, data, {})


def test_a_segmenter_that_starts_from_a_backbone_has_the_classes_of_its_data(tmp_path):
    """Those of the classifier that became the backbone are not compared."""
    fields = dict(path=str(beside(tmp_path, BESIDE["timm"])[0]), backbone=True)
    assert weights_classes(config(**fields, head=FRESH), tmp_path / "run", 3).names == ()
    whole = dict(fields, backbone=False)
    assert weights_classes(config(**whole, head=FRESH), tmp_path / "run", 3).names != ()


def test_own_classes_and_other_tasks_are_left_alone(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Own:
        data: object
        own_classes = True

    evals = {"own": Own(evaluated(("x",))), "plain": object()}
    assert share_labels(config(), tmp_path, Logits(), train(ANIMALS), evals)[1] == evals
    evals = {"val": Accuracy(evaluated(("x",)))}
    assert share_labels(config(), tmp_path, Features(), train(ANIMALS), evals)[1] == evals


def test_data_of_ones_own_without_the_method_must_have_equal_names(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Mine:
        class_names: tuple

    evals = {"val": Accuracy(Mine(ANIMALS))}
    assert share_labels(config(), tmp_path, Logits(), train(ANIMALS), evals)[1] == evals
    with pytest.raises(UserError, match="with_classes"):
        share_labels(config(), tmp_path, Logits(), train(ANIMALS), {"val": Accuracy(Mine(("dog", "ant", "cow")))})


def test_labels_beyond_the_classes_are_refused_whoever_gives_them():
    @dataclasses.dataclass(frozen=True)
    class Unnamed(Named):
        class_names: tuple = ()

        def __len__(self):
            return 4

    for wrong in (EvalData(Unnamed(), same, 4, num_threads=0, expected_classes=3), train(ANIMALS)):
        if isinstance(wrong, TrainData):
            wrong = EvalData(Relabeled(Unnamed(), (1, 0, 2), ANIMALS), same, 4, num_threads=0)
        with pytest.raises(UserError, match="label 3"):
            labels(wrong)
