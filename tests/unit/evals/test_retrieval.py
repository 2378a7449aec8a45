"""Retrieval against plain sorting: several captions per image, ties, any chunk, the forms that pairs come in."""

import csv
import dataclasses
import io
import json
import tarfile

import jax.numpy as jnp
import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from swin_jax.core.errors import UserError
from swin_jax.data import pipeline, subsets
from swin_jax.data.image_text import json_file, lists, pairs, tar_shards
from swin_jax.data.image_text.tokenizer import VOCAB_SIZE, encode
from swin_jax.evals import retrieval
from swin_jax.evals.retrieval import Retrieval
from swin_jax.train import sharding


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def by_sorting(queries, query_ids, candidates, ids, k):
    order = np.argsort(-(queries @ candidates.T), axis=-1, kind="stable")[:, :k]
    return np.mean((ids[order] == query_ids[:, None]).any(-1))


def problem(images=23, captions=5, seed=0):
    rng = np.random.default_rng(seed)
    image = unit(rng.normal(size=(images, 8)))
    owner = np.repeat(np.arange(images), rng.integers(1, captions + 1, images))
    return image, unit(image[owner] + 0.8 * rng.normal(size=(len(owner), 8))), owner


@pytest.mark.parametrize("chunk", [1, 7, 23, 500])
def test_equal_to_sorting(chunk):
    image, text, owner = problem()
    found = retrieval.recall(image, text, text_ids=owner, ks=(1, 5, 10), chunk=chunk)
    for k in (1, 5, 10):
        assert found[f"image_to_text_r{k}"] == pytest.approx(by_sorting(image, np.arange(23), text, owner, k))
        assert found[f"text_to_image_r{k}"] == pytest.approx(by_sorting(text, owner, image, np.arange(23), k))
    assert found["image_to_text_r1"] > found["text_to_image_r1"] > 0.1  # one of several captions is enough
    assert found["text_to_image_r10"] < 1


def test_equal_to_clip_benchmark():
    # clip-benchmark 1.6.2, metrics/zeroshot_retrieval.py, on the same features: the share of texts with
    # their image, of images with any of their texts, among the first k.
    image, text, owner = problem()
    found = retrieval.recall(image, text, text_ids=owner)
    recorded = {1: (0.2608696, 0.2083333), 5: (0.6956522, 0.6666667), 10: (0.7826087, 0.8611111)}
    for k, values in recorded.items():
        assert (found[f"image_to_text_r{k}"], found[f"text_to_image_r{k}"]) == pytest.approx(values, abs=1e-6)


def test_several_images_of_one_content_all_count():
    image, text, owner = problem()
    ids = np.arange(23) // 2 * 1000
    found = retrieval.recall(image, text, ids, ids[owner])
    assert found["text_to_image_r1"] == pytest.approx(by_sorting(text, ids[owner], image, ids, 1))
    assert found["text_to_image_r1"] > retrieval.recall(image, text, text_ids=owner)["text_to_image_r1"]


def test_order_does_not_matter():
    image, text, owner = problem()
    order = np.random.default_rng(1).permutation(len(text))
    assert retrieval.recall(image, text[order], text_ids=owner[order]) == retrieval.recall(image, text, text_ids=owner)


def test_a_collapsed_model_finds_no_more_than_chance():
    found = retrieval.recall(np.ones((20, 8), np.float32), np.ones((20, 8), np.float32))
    assert found["image_to_text_r1"] == found["text_to_image_r1"] == 0.05
    nan = retrieval.recall(np.full((20, 8), np.nan, np.float32), np.ones((20, 8), np.float32))
    assert nan["image_to_text_r10"] == nan["text_to_image_r10"] == 0


def test_what_cannot_be_is_told():
    with pytest.raises(UserError, match="8 and 4"):
        retrieval.recall(np.ones((2, 8)), np.ones((2, 4)))
    with pytest.raises(UserError, match="1 of 3 queries"):
        retrieval.recall(np.ones((3, 8)), np.ones((2, 8)))
    for captions in (["a cat"], [["a"], []]):
        with pytest.raises(UserError, match="image"):
            retrieval.caption_features(None, None, captions)


@dataclasses.dataclass(frozen=True)
class Rows:
    """As `data.pipeline.EvalData`: the last batch is filled with copies of the last row, of weight 0."""

    columns: dict
    batch_size: int = 6

    def batches(self, batch_size, rows):
        last = len(self.columns["image"]) - 1
        for start in range(0, last + 1, batch_size):
            positions = np.array([start + row for row in rows])
            index = np.minimum(positions, last)
            yield {key: value[index] for key, value in self.columns.items()} | {
                "weight": (positions <= last).astype(np.float32)
            }


class Pairs:
    """A task whose image features are its images, and whose text features are looked up in a table."""

    predicts = "features"

    def predict(self, state, batch, frozen):
        found = {"image_features": batch["image"]} if "image" in batch else {}
        return found | ({"text_features": frozen[batch["text"][:, 0]]} if "text" in batch else {})


def run(table, task=None, **options):
    placement = sharding.Placement(sharding.make_mesh(2, 4, 1))
    return Retrieval(**options).bind(Pairs(), placement)({}, jnp.asarray(table))


def test_evaluation_in_the_loop_of_pairs():
    image, text, owner = problem(captions=1)
    tokens = np.arange(23, dtype=np.int32)[:, None]
    data = Rows({"image": image, "text": tokens, "label": np.arange(23, dtype=np.int32) // 3})
    assert run(text, data=data) == retrieval.recall(image, text)
    ids = np.arange(23) // 3
    assert run(text, data=data, ids="label", ks=(2,)) == retrieval.recall(image, text, ids, ids, (2,))
    with pytest.raises(UserError, match="prefix"):
        run(text, data=data, prefix="a photo of ")


def test_evaluation_in_the_loop_of_captions_with_a_prefix():
    image, text, owner = problem()
    texts = [f"a photo of {i}" for i in range(len(text))]
    captions = [[str(i) for i in np.flatnonzero(owner == number)] for number in range(23)]

    def tokenize(lines):
        return np.array([[texts.index(line)] for line in lines], np.int32)

    options = {"captions": captions, "tokenize": tokenize, "prefix": "a photo of ", "batch_size": 5}
    found = run(text, data=Rows({"image": image}), **options)
    assert found == retrieval.recall(image, text, text_ids=owner)
    with pytest.raises(UserError, match="22 images for 23"):
        run(text, data=Rows({"image": image}), **(options | {"captions": captions[:-1]}))


# 30 captions of 6 images, each one token; image 3 has three of them, image 4 has seven, the others five.
WORDS = [
    word
    for word in sorted(
        """dog cat man woman red green blue black white boy girl car bus tree house road street
    water snow grass beach city park field table chair food plate pizza cake""".split()
    )
    if len(encode(word)) == 1
]
OWNERS = np.repeat(np.arange(6), (5, 5, 5, 3, 7, 5))


class Colors:
    """A task that looks features up: of an image by its color, of a text by its first token, in frozen tables."""

    predicts = "features"

    def predict(self, state, batch, frozen):
        found = {"image_features": frozen["images"][batch["image"][:, 0, 0, 0]]} if "image" in batch else {}
        return found | ({"text_features": frozen["texts"][batch["text"][:, 1]]} if "text" in batch else {})


@pytest.fixture
def colors(tmp_path):
    """The folder of the six images, the tables of a task, and what its retrieval has to be."""
    assert len(WORDS) == len(OWNERS) == 30
    rng = np.random.default_rng(5)
    images = unit(rng.normal(size=(6, 4)))
    texts = unit(images[OWNERS] + 0.7 * rng.normal(size=(30, 4)))
    table = np.zeros((VOCAB_SIZE, 4), np.float32)
    table[[encode(word)[0] for word in WORDS]] = texts
    for number in range(6):
        Image.new("RGB", (2, 2), (number, 0, 0)).save(tmp_path / f"{number}.png")
    expected = {}
    for k in (1, 2):
        expected[f"image_to_text_r{k}"] = by_sorting(images, np.arange(6), texts, OWNERS, k)
        expected[f"text_to_image_r{k}"] = by_sorting(texts, OWNERS, images, np.arange(6), k)
    assert len(set(expected.values())) == 4 and 0 < min(expected.values()) < 1
    return tmp_path, {"images": jnp.asarray(images), "texts": jnp.asarray(table)}, expected


def own(number):
    return [WORDS[i] for i in np.flatnonzero(OWNERS == number)]


def write_list(folder):
    rows = [{"image": f"{number}.png", "captions": own(number)} for number in range(6)]
    (folder / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return lists.jsonl(str(folder / "x.jsonl"))


def write_lines(folder):
    """A line for each caption, those of an image apart from each other, and its path in several spellings."""
    order = np.random.default_rng(0).permutation(30)
    rows = [{"image": "./" * (i % 2) + f"{OWNERS[i]}.png", "text": WORDS[i], "record": "x"} for i in order]
    (folder / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return lists.jsonl(str(folder / "x.jsonl"))


def write_csv(folder):
    with open(folder / "x.csv", "w", newline="") as file:
        rows = [(f"{folder}/{OWNERS[i]}.png", WORDS[i]) for i in range(30)]
        csv.writer(file).writerows([("filepath", "title"), *rows])
    return lists.table(str(folder / "x.csv"))


def write_karpathy(folder):
    images = [
        {"filename": f"{number}.png", "split": "test", "sentences": [{"raw": text} for text in own(number)]}
        for number in range(6)
    ]
    (folder / "x.json").write_text(json.dumps({"images": images}))
    return json_file.json_file(str(folder / "x.json"), split="test")


def write_links(folder):
    """Lists that name an image by another path each time."""
    (folder / "in").mkdir()
    for number in range(6):
        (folder / f"link{number}.png").symlink_to(f"{number}.png")
    ways = (str(folder) + "/{}.png", "{}.png", "./in/../{}.png", "link{}.png")
    rows = [
        json.dumps({"image": ways[i % len(ways)].format(number), "text": WORDS[i]}) for i, number in enumerate(OWNERS)
    ]
    (folder / "x.jsonl").write_text("\n".join(rows))
    return lists.jsonl(str(folder / "x.jsonl"))


def write_selection(folder):
    return subsets.Selection(write_lines(folder), tuple(range(30)))


def add(tar, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def write_tar(folder, **options):
    """Shards as CLIP_benchmark writes them, a caption in each line."""
    with tarfile.open(folder / "x.tar", "w") as tar:
        for number in range(6):
            add(tar, f"{number}.png", (folder / f"{number}.png").read_bytes())
            add(tar, f"{number}.txt", "\n".join(own(number)).encode())
    return tar_shards.tar_shards(str(folder / "x.tar"), **({"caption_lines": True} | options))


def write_copies(folder):
    """Shards with an image for each caption."""
    with tarfile.open(folder / "x.tar", "w") as tar:
        for i in range(30):
            add(tar, f"{i}.png", (folder / f"{OWNERS[i]}.png").read_bytes())
            add(tar, f"{i}.txt", WORDS[i].encode())
    return tar_shards.tar_shards(str(folder / "x.tar"))


def write_parquet(folder):
    images = [(folder / f"{number}.png").read_bytes() for number in OWNERS]
    parquet.write_table(pyarrow.table({"image": images, "caption": WORDS}), folder / "x.parquet")
    return lists.table(str(folder / "x.parquet"))


def write_folder(folder):
    for number in range(6):
        (folder / f"{number}.txt").write_text("\n".join(own(number)) + "\n")
    return pairs.folder(str(folder), caption_lines=True)


FORMS = (write_list, write_lines, write_csv, write_karpathy, write_selection, write_tar, write_copies, write_parquet)
FORMS += (write_folder, write_links)


def eval_data(source, **options):
    transform = pairs.eval_transform(
        lambda example: {"image": np.asarray(example["image"])}, context_length=5, **options
    )
    return pipeline.EvalData(source, transform, 8, num_threads=0)


def search(data, tables, **options):
    placement = sharding.Placement(sharding.make_mesh(2, 4, 1))
    return Retrieval(data, ks=(1, 2), batch_size=8, **options).bind(Colors(), placement)({}, tables)


@pytest.mark.parametrize("write", FORMS)
def test_all_captions_of_every_image_in_every_form(colors, write):
    folder, tables, expected = colors
    assert search(eval_data(write(folder)), tables) == pytest.approx(expected)


def test_texts_of_several_lines_are_not_taken_for_one_caption_without_a_word(colors):
    folder, tables, expected = colors
    with pytest.warns(UserWarning, match="6 captions have several lines .*source.caption_lines=True"):
        assert search(eval_data(write_tar(folder, caption_lines=False)), tables) != pytest.approx(expected)


def test_a_caption_function_gives_one_caption_per_image(colors):
    folder, tables, _ = colors
    first = [int(np.flatnonzero(OWNERS == number)[0]) for number in range(6)]
    texts = np.asarray(tables["texts"])[[encode(WORDS[i])[0] for i in first]]
    data = eval_data(write_list(folder), caption=lambda example: example["text"][0])
    assert search(data, tables) == retrieval.recall(np.asarray(tables["images"]), texts, ks=(1, 2))


def test_an_image_that_cannot_be_read_is_left_out_with_its_captions(colors):
    folder, tables, _ = colors
    source = write_lines(folder)
    (folder / "3.png").write_bytes(b"no picture")
    data = dataclasses.replace(eval_data(source), unreadable="leave_out")
    real = OWNERS != 3
    texts = np.asarray(tables["texts"])[[encode(word)[0] for word in WORDS]]
    images = np.asarray(tables["images"])
    rest = [0, 1, 2, 4, 5]
    expected = retrieval.recall(images[rest], texts[real], rest, OWNERS[real], ks=(1, 2))
    assert search(data, tables) == pytest.approx(expected | {"left_out": 1})


def test_a_record_that_cannot_be_read_stops_the_search(colors):
    folder, tables, _ = colors
    source = write_lines(folder)
    with open(folder / "x.jsonl", "a") as file:
        file.write('\n{"image": "0.png", "text": 5}')
    with pytest.raises(UserError, match="x.jsonl line 31 cannot be read"):
        search(eval_data(lists.jsonl(str(folder / "x.jsonl"))), tables)
    (folder / "3.png").unlink()
    with pytest.raises(UserError, match="cannot be read .*3.png"):
        search(eval_data(source), tables)
    with pytest.raises(UserError, match="captions need tokenize"):
        run(np.ones((3, 2)), data=Rows({"image": np.ones((3, 2))}), captions=[["a"]] * 3)


def test_it_pauses_between_chunks_of_queries():
    image, text, owner = problem()
    calls = []
    retrieval.recall(image, text, text_ids=owner, chunk=10, pause=lambda: calls.append(0))
    assert len(calls) == -(-len(image) // 10) + -(-len(text) // 10)
