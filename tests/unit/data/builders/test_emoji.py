"""The emoji builder on tiny made-up npm tarballs, and fetching them from a local registry."""

import hashlib
import http.server
import io
import json
import sys
import tarfile
import threading

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UserError
from swin_jax.data import sources
from swin_jax.data.builders import emoji, npm

SIZE = 16
EMOJI = {  # the names and groups
    "🐶": ("dog face", "Animals & Nature"),
    "❤️": ("red heart", "Smileys & Emotion"),
    "👉": ("backhand index pointing right", "People & Body"),
    "👈": ("backhand index pointing left", "People & Body"),
    "*️⃣": ("keycap *", "Symbols"),
    "🦗": ("cricket", "Animals & Nature"),
    "🏏": ("cricket game", "Activities"),
}
RED, GREEN, BLUE = "#f00", "#0f0", "#00f"


def half(color):
    """Fills the left half of a 10 x 10 drawing."""
    return {"body": f'<path fill="{color}" d="M0 0h5v10H0z"/>'}


ICONS = {
    "width": 10,
    "height": 10,
    "icons": {
        "dog-face": half(RED),
        "heart": half(GREEN),
        "backhand-index-pointing-left": half(BLUE),
        "keycap-asterisk": half(RED),
        "cricket-game": {**half(RED), "height": 20},
    },
    "aliases": {
        "loved": {"parent": "heart"},
        "backhand-index-pointing-right": {"parent": "backhand-index-pointing-left", "hFlip": True},
        "cricket": {"parent": "cricket-game"},
        "endless": {"parent": "endless"},
    },
}
CHARS = {"1f436": "dog-face", "2764-FE0F": "loved", "1f98a": "endless"}


def webp(mode="RGBA", color=(0, 0, 255, 128)):
    file = io.BytesIO()
    Image.new(mode, (32, 32), color).save(file, "webp", lossless=True)
    return file.getvalue()


def tarball(folder, name, files):
    """Writes a package and returns it with its checksum."""
    path = folder / npm.Package(name, "1.0.0").tarball
    with tarfile.open(path, "w:gz") as tar:
        for file, data in files.items():
            data = data if isinstance(data, bytes) else json.dumps(data).encode()
            member = tarfile.TarInfo(f"package/{file}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return npm.Package(name, "1.0.0", hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def packages(tmp_path):
    """(folder, the arguments `vendors` and `texts` of the builder)."""
    folder = tmp_path / "tarballs"
    folder.mkdir()
    names = {emoji_: {"name": name, "group": group} for emoji_, (name, group) in EMOJI.items()}
    groups = {"subgroups": {"0": "animal-mammal", "1": "heart"}}
    subgroups = [{"hexcode": "1F436", "subgroup": 0}, {"hexcode": "2764-FE0F", "subgroup": 1}, {"hexcode": "1F1E6"}]
    texts = (
        tarball(folder, "names", {"data-by-emoji.json": names}),
        tarball(folder, "keywords", {"dist/emoji-en-US.json": {"🐶": ["dog_face", "pet", "wüf"]}}),
        tarball(folder, "subgroups", {"en/data.json": subgroups, "meta/groups.json": groups}),
    )
    flat = tarball(folder, "@set/flat", {"icons.json": ICONS, "chars.json": CHARS, "info.json": {}})
    assets = {"assets/1f436.webp": webp(), "assets/2764-fe0f.webp": webp(), "assets/1f436-1f3fb.webp": webp()}
    solid = tarball(folder, "@set/solid", assets)
    vendors = {"noto": emoji.Vendor(flat, "MIT", "Us"), "fluent_3d": emoji.Vendor(solid, "CC-BY-4.0", "Them", 2)}
    return folder, {"vendors": vendors, "texts": texts}


def colors(image):
    """Colors left and right of the center."""
    array = np.asarray(image)
    return tuple(array[SIZE // 2, SIZE // 4]), tuple(array[SIZE // 2, 3 * SIZE // 4])


def test_builds_a_readable_data_set(tmp_path, packages, capsys):
    import tensorflow_datasets as tfds

    folder, arguments = packages
    path = emoji.build(str(tmp_path / "data"), str(folder), SIZE, **arguments)
    assert path == tmp_path / "data" / "emoji_16" / "1.0.0"
    builder = tfds.builder_from_directory(path)
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {"noto": 5 + 1, "fluent_3d": 2}
    records = {record["code"].decode(): record for record in builder.as_data_source("noto")}
    assert list(records) == ["1f436", "2764", "1f449", "1f448", "002a-20e3", "1f3cf"]  # the insect is not the game
    dog, features = records["1f436"], builder.info.features
    assert dog["name"] == b"dog face" and [word.decode() for word in dog["keywords"]] == ["pet", "wüf"]
    assert features["concept"].names[dog["concept"]] == "dog face" and features["concept"].num_classes == len(EMOJI)
    assert features["group"].names[dog["group"]] == "Animals & Nature"
    assert features["subgroup"].names[dog["subgroup"]] == "animal-mammal"
    assert features["vendor"].names[dog["vendor"]] == "noto"
    assert {code for code, record in records.items() if record["common"]} == {"1f436", "2764"}
    assert features["subgroup"].names[records["1f448"]["subgroup"]] == "other"
    licenses = (path / "LICENSES.md").read_text()
    assert "noto: MIT. Us" in licenses and "fluent_3d: CC-BY-4.0. Them" in licenses
    assert licenses in capsys.readouterr().out


def test_pictures(tmp_path, packages):
    folder, arguments = packages
    emoji.build(str(tmp_path), str(folder), SIZE, **arguments)
    source = sources.tfds("emoji_16", "noto", str(tmp_path), label_key="concept")
    by_name = {source.class_names[source[i]["label"]]: source[i]["image"] for i in range(len(source))}
    white = (255, 255, 255)
    assert colors(by_name["dog face"]) == ((255, 0, 0), white)
    assert colors(by_name["red heart"]) == ((0, 255, 0), white)  # an alias that the code points name
    assert colors(by_name["backhand index pointing left"]) == ((0, 0, 255), white)
    assert colors(by_name["backhand index pointing right"]) == (white, (0, 0, 255))  # a mirrored alias
    game = np.asarray(by_name["cricket game"])  # 10 x 20 of which the upper left quarter is red, centered
    assert tuple(game[SIZE // 4, SIZE // 2 - 2]) == (255, 0, 0)
    assert (game[:, : SIZE // 4] == 255).all() and (game[SIZE // 2 + 1 :] == 255).all()
    solid = sources.tfds("emoji_16", "fluent_3d", str(tmp_path), label_key="concept")
    assert colors(solid[0]["image"]) == ((127, 127, 255),) * 2  # half opaque blue over white


def test_64_pixels_are_called_emoji(tmp_path, packages):
    folder, arguments = packages
    assert emoji.build(str(tmp_path), str(folder), **arguments).parent.name == "emoji"
    with pytest.raises(UserError, match="--overwrite"):
        emoji.build(str(tmp_path), str(folder), **arguments)


def test_broken_icon_is_named(tmp_path, packages):
    folder, arguments = packages
    icons = {**ICONS, "icons": {**ICONS["icons"], "dog-face": {"body": "<path"}}}
    vendor = emoji.Vendor(tarball(folder, "@set/broken", {"icons.json": icons}), "MIT", "Us")
    with pytest.raises(UserError, match="'dog-face' cannot be rendered"):
        emoji.build(str(tmp_path), str(folder), vendors={"noto": vendor}, texts=arguments["texts"])
    assert not (tmp_path / "emoji" / "1.0.0").exists()


def test_missing_and_wrong_tarballs(tmp_path, packages):
    folder, arguments = packages
    (folder / "set-solid-1.0.0.tgz").rename(folder / "solid-1.0.0.tgz")  # as the registry names it
    emoji.build(str(tmp_path), str(folder), **arguments)
    (folder / "solid-1.0.0.tgz").write_bytes(b"other")
    with pytest.raises(UserError, match="solid-1.0.0.tgz is not the expected file"):
        emoji.build(str(tmp_path), str(folder), SIZE, **arguments)
    (folder / "solid-1.0.0.tgz").unlink()
    (folder / "keywords-1.0.0.tgz").unlink()
    with pytest.raises(UserError, match="npm pack keywords@1.0.0 @set/solid@1.0.0"):
        emoji.build(str(tmp_path), str(folder), SIZE, **arguments)


def test_damaged_tarball(tmp_path):
    (tmp_path / "x.tgz").write_bytes(b"\x1f\x8b nothing")
    with pytest.raises(UserError, match="is damaged"):
        npm.read_json(tmp_path / "x.tgz", "a.json")


def test_without_the_renderer(tmp_path, packages, monkeypatch):
    folder, arguments = packages
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(UserError, match=r"pip install -e '.\[emoji\]'"):
        emoji.build(str(tmp_path), str(folder), **arguments)


@pytest.fixture
def registry(packages):
    """A registry on this machine: (its address, the list of (path, first byte asked for))."""
    folder, asked = packages[0], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            start = int(self.headers.get("Range", "bytes=0-")[6:-1])
            asked.append((self.path, start))
            scope, _, name = self.path.rpartition("/-/")
            path = folder / (("set-" if scope.startswith("/@set") else "") + name)
            data = path.read_bytes() if path.exists() else b""
            self.send_response((206 if start else 200) if start < len(data) else (416 if data else 404))
            self.send_header("Content-Length", str(len(data[start:])))
            self.end_headers()
            self.wfile.write(data[start:])

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_fetch_keeps_and_resumes(tmp_path, packages, registry):
    address, asked = registry
    wanted = [vendor.package for vendor in packages[1]["vendors"].values()]
    target = tmp_path / "downloads"
    target.mkdir()
    whole = (packages[0] / wanted[1].tarball).read_bytes()
    (target / f"{wanted[0].tarball}.part").write_bytes((packages[0] / wanted[0].tarball).read_bytes()[:50])
    (target / f"{wanted[1].tarball}.part").write_bytes(whole)  # ended between the last byte and the renaming
    npm.fetch(wanted, target, address)
    assert asked == [("/@set/flat/-/flat-1.0.0.tgz", 50), ("/@set/solid/-/solid-1.0.0.tgz", len(whole))]
    assert {path.name for path in target.iterdir()} == {package.tarball for package in wanted}
    npm.fetch(wanted, target, address)
    assert len(asked) == 2
    assert npm.find(wanted, target)["@set/flat"] == target / "set-flat-1.0.0.tgz"


def test_fetch_refuses_another_file(tmp_path, packages, registry):
    package = packages[1]["texts"][0]
    with pytest.raises(UserError, match="not the expected file"):
        npm.fetch([npm.Package(package.name, package.version, "0" * 64)], tmp_path / "d", registry[0])
    assert not list((tmp_path / "d").iterdir())
    with pytest.raises(UserError, match="cannot fetch .*404.*npm pack none@1.0.0"):
        npm.fetch([npm.Package("none", "1.0.0")], tmp_path / "d", registry[0])


def test_every_vendor_has_its_checksum_and_license():
    for vendor in emoji.VENDORS.values():
        assert len(vendor.package.sha256) == 64 and vendor.license and "https://" in vendor.credit
    assert set(emoji.COMMON_TO) <= set(emoji.VENDORS) and "CC-BY-SA-4.0" in emoji.license_text(emoji.VENDORS, SIZE)
