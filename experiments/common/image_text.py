"""Pairs of images and texts: sources, loaders, retrieval as validation, and made-up pairs."""

from types import SimpleNamespace

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from experiments.common import run
from swin_jax.core.config import spec
from swin_jax.data import fake, pipeline
from swin_jax.data.image import transforms as image
from swin_jax.data.image_text import json_file, lists, pairs, tar_shards
from swin_jax.evals.retrieval import Retrieval

# What `pairs` may be: shards, a file of JSON lines, a folder, a table (.csv, .tsv, .parquet), one
# JSON file (Karpathy's splits, COCO's captions, a list). An experiment that names captions in TFDS
# takes those too.
FORMS = ("tar", "jsonl", "folder", "table", "json")
# Arguments that experiments have in common: kind of pairs, whether some are searched, preset for a
# pod, made-up data.
ARGUMENTS = dict(data=FORMS, validation=False, pod=run.CHIPS, fake=False)


def sizes(**fields) -> ConfigDict:
    """A config with these fields, seed 0, its steps (`run.count_steps`), and the paths of pairs.

    The paths, `pairs` and `validation_pairs`, are to be given.
    One unreadable record in 100 is borne.
    """
    paths = dict(pairs=placeholder(str), validation_pairs=placeholder(str))
    c = ConfigDict(dict(seed=0, **paths, **fields))
    run.count_steps(c)
    c.max_bad_records = c.get_oneway_ref("total_steps") * c.get_oneway_ref("batch_size") // 100
    return c


def read(c: ConfigDict, form: str, split: str) -> ConfigDict:
    """A spec of the pairs of a split, 'train' or 'validation'.

    Args:
        c: Config with `pairs` and `validation_pairs`; for 'tfds' with `tfds_name`, `data_dir` and
            `text_key`.
        form: An entry of FORMS, or 'tfds'.
        split: 'train' reads `pairs`, 'validation' reads `validation_pairs`. Of a JSON file with
            splits, which both may name, that is 'train' (with 'restval') and 'val'.
    """
    path = c.get_oneway_ref("pairs" if split == "train" else "validation_pairs")
    if form == "tar":
        return spec(tar_shards.tar_shards, patterns=path)
    if form == "jsonl":
        return spec(lists.jsonl, path=path)
    if form == "table":
        return spec(lists.table, path=path)
    if form == "json":
        own = "train" if split == "train" else "val"
        return spec(json_file.json_file, path=path, split=own)
    if form == "folder":
        return spec(pairs.folder, root=path)
    name = c.get_oneway_ref("tfds_name")
    return spec(pairs.tfds, name=name, split=split, **run.refs(c, "data_dir", "text_key"))


def train_data(c: ConfigDict, form: str, augment: ConfigDict, **text) -> ConfigDict:
    """A spec of the training pairs, with 16 loader processes.

    Args:
        c: Config whose batch size, seed, context length and number of pairs hold.
        form: An entry of FORMS, or 'tfds'.
        augment: Spec of the transform of the images.
        **text: Arguments of `pairs.train_transform` on the texts.
    """
    context = run.refs(c, "context_length")
    return spec(
        pipeline.TrainData,
        source=read(c, form, "train"),
        transform=spec(pairs.train_transform, image=augment, **context, **text),
        **run.refs(c, "batch_size", "seed"),
        num_workers=16,
        expected_examples=c.get_oneway_ref("num_train"),
    )


def crop(c: ConfigDict) -> ConfigDict:
    """A spec of CLIP's evaluation transform: the central square, scaled to `image_size` pixels."""
    return spec(image.clip_eval_transform, size=c.get_oneway_ref("image_size"))


def cleaning(c: ConfigDict):
    """A reference to how the training cleans texts, which evaluations follow."""
    return c.data.transform.get_oneway_ref("clean")


def retrieval(c: ConfigDict, source: ConfigDict, every: run.Updates, ks=(1, 5, 10)):
    """A search of images by texts and of texts by images, every so many updates.

    Args:
        c: Config with its `data`, whose image size and context length hold.
        source: Spec of the pairs.
        every: Updates between two searches, a number or a reference.
        ks: Numbers of results among which the partner is looked for.
    """
    text = dict(clean=cleaning(c), **run.refs(c, "context_length"))
    transform = spec(pairs.eval_transform, image=crop(c), **text)
    loader = dict(batch_size=1024, num_workers=16)
    data = spec(pipeline.EvalData, source=source, transform=transform, **loader)
    return dict(every=every, run=spec(Retrieval, data=data, ks=ks))


def validation(c: ConfigDict, arg: SimpleNamespace, every: run.Updates) -> ConfigDict:
    """The evaluations of a run: none, or with the argument `validation` a search of those pairs.

    Args:
        c: Config whose image size and context length hold.
        arg: Arguments of the experiment, `data` and `validation` among them.
        every: Updates between two searches, a number or a reference.
    """
    evals = ConfigDict()
    if arg.validation:
        evals.validation = retrieval(c, read(c, arg.data, "validation"), every)
    return evals


def use_fakes(c: ConfigDict, every: run.Updates = 3) -> ConfigDict:
    """The config without data, weights or time: 24 made-up pairs, which are searched.

    It leaves the towers to the caller.

    Args:
        c: Config to change.
        every: Updates between two searches, a number or a reference.
    """
    c.update(epochs=1, batch_size=8, num_train=24, image_size=32, context_length=16, warmup_steps=1)
    c.init_from.required = False
    c.data.source = spec(fake.pairs, image_size=40, num_examples=24)
    c.data.num_workers = 0
    source = spec(fake.pairs, image_size=40, num_examples=24, split="test")
    c.evals = dict(validation=retrieval(c, source, every, ks=(1, 5)))
    c.evals.validation.run.data.update(num_workers=0, batch_size=8)
    return c
