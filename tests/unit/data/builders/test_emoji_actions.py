"""The builder of the animated emoji, on tiny made-up packages."""

import base64
import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UserError
from swin_jax.data.builders import emoji_actions, npm
from swin_jax.data.emoji import actions as data

SIZE = 8
TONES = ("", "-1f3fb", "-1f3fc", "-1f3fd", "-1f3fe", "-1f3ff")
# Code points before and behind the skin tone, and the name.
PEOPLE = {
    ("1f6b6", ""): "person walking",
    ("1f6b6", "-200d-2642-fe0f"): "man walking",
    ("1f6b6", "-200d-2640-fe0f"): "woman walking",
    ("1f926", ""): "person facepalming",
    ("1f926", "-200d-2642-fe0f"): "man facepalming",
    ("1f926", "-200d-2640-fe0f"): "woman facepalming",
    ("1f6c0", ""): "person taking bath",  # of no gender: not a whole class
}
OTHERS = {"1f436": ("dog face", "Animals & Nature"), "1f3a9": ("man standing in a drawing", "Objects")}


def animation(red=0, frames=3, still=False):
    """An animated WebP: the left half is opaque and redder with each frame, the right half is transparent."""
    pictures = []
    for number in range(1 if still else frames):
        pixels = np.zeros((32, 32, 4), np.uint8)
        pixels[:, :16] = (red + 40 * number, 0, 200, 255)
        pixels[0, 31, 3] = 10 * number  # libwebp 1.6 drops the alpha of pictures that stay in two colors
        pictures.append(Image.fromarray(pixels))
    file = io.BytesIO()
    pictures[0].save(file, "webp", lossless=True, save_all=not still, append_images=pictures[1:], duration=42, loop=0)
    return file.getvalue()


def tarball(folder, name, files):
    """Writes a package and returns it with its checksum."""
    path = folder / npm.Package(name, "1.0.0").tarball
    with tarfile.open(path, "w:gz") as tar:
        for file, content in files.items():
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{file}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return npm.Package(name, "1.0.0", hashlib.sha256(path.read_bytes()).hexdigest())


def code(points):
    return "-".join(point for point in points.split("-") if point != "fe0f")


@pytest.fixture
def packages(tmp_path):
    """(folder of tarballs, the arguments `available` and `texts` of the builder)."""
    folder = tmp_path / "tarballs"
    folder.mkdir()
    named = {code(a + b): (name, "People & Body") for (a, b), name in PEOPLE.items()} | OTHERS
    letters = {points: "".join(chr(int(point, 16)) for point in points.split("-")) for points in named}
    names = {letters[points]: {"name": name, "group": group} for points, (name, group) in named.items()}
    files = {
        f"assets/{before}{tone}{behind}.webp": animation(
            40 * ("facepalming" in name), 5 if "facepalming" in name else 3
        )
        for (before, behind), name in PEOPLE.items()
        for tone in TONES
    }
    files |= {f"assets/{points}.webp": animation() for points in OTHERS}
    walking = {name: content for name, content in files.items() if "1f6b6" in name}
    rest = {name: content for name, content in files.items() if "1f6b6" not in name}
    rest["assets/1f600.webp"] = animation(still=True)
    texts = (
        tarball(folder, "names", {"data-by-emoji.json": names}),
        tarball(folder, "keywords", {"dist/emoji-en-US.json": {}}),
        tarball(
            folder,
            "subgroups",
            {
                "en/data.json": [{"hexcode": points.upper(), "subgroup": 0} for points in named],
                "meta/groups.json": {"subgroups": {"0": "person-activity"}},
            },
        ),
    )
    available = {
        "anim-1": emoji_actions.Animations(tarball(folder, "@set/anim-1", walking)),
        "anim-2": emoji_actions.Animations(tarball(folder, "@set/anim-2", rest)),
    }
    return folder, dict(available=available, texts=texts)


def build(tmp_path, packages, names=("anim-1",), **options):
    folder, arguments = packages
    return emoji_actions.build(str(tmp_path), names, str(folder), **{"size": SIZE, **arguments, **options})


def test_whole_classes_become_splits_by_person(tmp_path, packages):
    path = build(tmp_path, packages, ("all",))
    assert path == tmp_path / "emoji_actions" / "all_8px" / "1.0.0"
    assert "MIT" in (path / "LICENSES.md").read_text() and "@set/anim-1 1.0.0" in (path / "LICENSES.md").read_text()
    assert [entry.name for entry in path.parent.parent.iterdir()] == ["all_8px"]  # nothing is left over
    source = data.emoji_actions(str(tmp_path), ("man", "woman"), "all_8px")
    assert source.class_names == ("facepalming", "walking") and len(source) == 24
    assert source.labels().tolist() == [0] * 6 + [1] * 6 + [0] * 6 + [1] * 6
    examples = [source[index] for index in range(24)]
    assert [example["tone"] for example in examples[:6]] == list(emoji_actions.TONES)
    assert {example["who"] for example in examples[:12]} == {"man"}
    assert {example["who"] for example in examples[12:]} == {"woman"}
    assert [len(example["video"]) for example in examples] == ([5] * 6 + [3] * 6) * 2
    assert source.record_name(13) == "emoji woman facepalming, skin tone light"


def test_only_animations_of_one_person_count(tmp_path, packages):
    folder, arguments = packages
    files = {
        "assets/1f6b6.webp": animation(still=True),
        "assets/1f6b6-1f3fe-200d-2640-FE0F.webp": animation(),
        "assets/1f6b6-1f3fb-1f3fc.webp": animation(),  # of two tones
        **{f"assets/{points}.webp": animation() for points in (*OTHERS, "1f9ff")},
    }
    texts = (folder / package.tarball for package in arguments["texts"])
    clips = emoji_actions.find_clips({"anim-7": folder / tarball(folder, "@set/some", files).tarball}, *texts)
    assert clips == [
        emoji_actions.Clip(
            code="1f6b6-1f3fe-200d-2640-fe0f",
            package="anim-7",
            file="assets/1f6b6-1f3fe-200d-2640-FE0F.webp",
            name="woman walking",
            who="woman",
            action="walking",
            tone="medium-dark",
            subgroup="person-activity",
        )
    ]


def test_frames_keep_order_color_and_transparency(tmp_path, packages):
    build(tmp_path, packages)
    frames = data.emoji_actions(str(tmp_path), ("person",), "anim_1_8px")[2]["video"].get([0, 1, 2])
    assert frames.shape == (3, SIZE, SIZE, 4) and frames.dtype == np.uint8
    np.testing.assert_allclose(frames[:, 4, 1, 0], [0, 40, 80], atol=2)
    np.testing.assert_allclose(frames[:, 4, 1, 1:], [(0, 200, 255)] * 3, atol=2)
    assert (frames[:, 2:, SIZE - 1, 3] == 0).all() and (frames[:, 2:, 0, 3] == 255).all()


def test_tfds_opens_it_by_name(tmp_path, packages):
    import tensorflow_datasets as tfds

    build(tmp_path, packages)
    info = tfds.builder("emoji_actions/anim_1_8px", data_dir=str(tmp_path)).info
    assert {name: split.num_examples for name, split in info.splits.items()} == {"man": 6, "person": 6, "woman": 6}
    record = tfds.data_source("emoji_actions/anim_1_8px", data_dir=str(tmp_path), split="man")[0]
    assert len(record["video"]) == record["num_frames"] == 3 and np.asarray(record["video"][0]).shape == (SIZE, SIZE, 4)
    assert (
        record["action"] == b"walking" and record["subgroup"] == b"person-activity" and record["code"][:5] == b"1f6b6"
    )


def test_a_stopped_run_goes_on_with_the_next_clip(tmp_path, packages, monkeypatch):
    read, count = emoji_actions.read_frames, []

    def stopped(content, size):
        count.append(1)
        if len(count) == 8:
            raise KeyboardInterrupt
        return read(content, size)

    monkeypatch.setattr(emoji_actions, "read_frames", stopped)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, packages)
    assert not (tmp_path / "emoji_actions" / "anim_1_8px").exists()
    build(tmp_path, packages)
    assert len(count) == 8 + 18 - 7
    source = data.emoji_actions(str(tmp_path), emoji_actions.WHO, "anim_1_8px")
    assert {len(source[index]["video"]) for index in range(18)} == {3}


def test_packages_are_checked(tmp_path, packages):
    folder, arguments = packages
    with pytest.raises(UserError, match="anim-9 is not one of anim-1, anim-2 or all"):
        build(tmp_path, packages, ("anim-1", "anim-9"))
    with pytest.raises(UserError, match="no action that a man, a woman and a person show"):
        bath = {f"assets/1f6c0{tone}.webp": animation() for tone in TONES}
        build(tmp_path, packages, available={"anim-1": emoji_actions.Animations(tarball(folder, "@set/bath", bath))})
    good = arguments["available"]["anim-1"].package
    right = base64.b64encode(hashlib.sha512((folder / good.tarball).read_bytes()).digest()).decode()
    build(tmp_path, packages, available={"anim-1": emoji_actions.Animations(good, right), "anim-2": None})
    with pytest.raises(UserError, match="its sha512 differs"):
        build(tmp_path, packages, available={"anim-1": emoji_actions.Animations(good, "other")}, size=16)
    with pytest.raises(UserError, match="--overwrite"):
        build(tmp_path, packages)


def test_a_damaged_animation_is_named(tmp_path, packages):
    folder, _ = packages
    files = {
        f"assets/1f6b6{tone}{behind}.webp": animation()
        for (before, behind) in PEOPLE
        for tone in TONES
        if before == "1f6b6"
    }
    files["assets/1f6b6-1f3fd.webp"] = animation()[:120]
    broken = {"anim-1": emoji_actions.Animations(tarball(folder, "@set/broken", files))}
    with pytest.raises(UserError, match="assets/1f6b6-1f3fd.webp in .* cannot be read"):
        build(tmp_path, packages, available=broken)


def test_every_package_has_a_checksum():
    assert len({len(base64.b64decode(found.sha512)) for found in emoji_actions.PACKAGES.values()} & {64}) == 1
    assert len({found.sha512 for found in emoji_actions.PACKAGES.values()}) == 4
