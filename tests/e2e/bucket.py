"""A bucket for tests, gs://bucket/..., kept in a local folder: `install` puts it where gcsfs and TensorStore would be.

As on Google Cloud Storage an object appears when its file is closed, folders exist only as the beginnings of names,
nothing can be appended to, and renaming does not exist.
"""

import io
import os
import pathlib
import uuid

import fsspec
from orbax.checkpoint._src.path import gcs_utils


def install(folder: str | os.PathLike) -> pathlib.Path:
    """Makes gs://bucket of a folder, for the rest of this process; returns the folder."""
    Bucket.root = pathlib.Path(folder)
    fsspec.register_implementation("gcs", Bucket, clobber=True)
    fsspec.register_implementation("gs", Bucket, clobber=True)
    gcs_utils.is_hierarchical_namespace_enabled = lambda path: False
    gcs_utils.get_kvstore_for_gcs = lambda path: {"driver": "file", "path": str(Bucket.root / _name(path))}
    return Bucket.root


def _name(path: str) -> str:
    name = path.removeprefix("gs://").removeprefix("gcs://").strip("/")
    assert name == "bucket" or name.startswith("bucket/"), f"there is no such bucket: {path}"
    return name.removeprefix("bucket").strip("/")


class _Upload(io.BytesIO):
    def __init__(self, target: pathlib.Path):
        super().__init__()
        self._target = target

    def close(self):
        if not self.closed:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            part = Bucket.root.with_name(f"upload_{uuid.uuid4().hex}")
            part.write_bytes(self.getvalue())
            part.replace(self._target)
        super().close()


class Bucket(fsspec.AbstractFileSystem):
    """What epath asks of a bucket."""

    protocol = ("gcs", "gs")
    root: pathlib.Path
    cachable = False

    def __init__(self, **options):
        # What gcsfs takes; TensorStore writes behind its back, so that it must not remember lists.
        assert options.get("use_listings_cache") is False
        super().__init__(**options)

    def _objects(self, path: str) -> list[pathlib.Path]:
        """What there is at a name or below it."""
        at = self.root / _name(path)
        return [at] if at.is_file() else [file for file in at.rglob("*") if file.is_file()]

    def _info(self, file: pathlib.Path) -> dict:
        name = f"bucket/{file.relative_to(self.root).as_posix()}".removesuffix("/.")
        if file.is_file():
            return {"name": name, "type": "file", "size": file.stat().st_size, "mtime": file.stat().st_mtime}
        return {"name": name, "type": "directory", "size": 0}

    def info(self, path, **options):
        if not self._objects(path) and _name(path):
            raise FileNotFoundError(path)
        return self._info(self.root / _name(path))

    def ls(self, path, detail=True, **options):
        found, at = self._objects(path), self.root / _name(path)
        if not found and _name(path):
            raise FileNotFoundError(path)
        entries = {at if file == at else at / file.relative_to(at).parts[0] for file in found}
        infos = [self._info(entry) for entry in sorted(entries)]
        return infos if detail else [entry["name"] for entry in infos]

    def _open(self, path, mode="rb", **options):
        assert mode in ("rb", "wb"), f"a bucket has no mode {mode!r}"
        at = self.root / _name(path)
        return at.open("rb") if mode == "rb" else _Upload(at)

    def rm_file(self, path):
        (self.root / _name(path)).unlink()

    def rm(self, path, recursive=False, maxdepth=None):
        found = self._objects(path)
        if not found:
            raise FileNotFoundError(path)
        assert recursive or len(found) == 1
        for file in found:
            file.unlink()

    def mkdir(self, path, create_parents=True, **options):
        _name(path)

    def makedirs(self, path, exist_ok=False):
        _name(path)

    def rmdir(self, path):
        _name(path)

    def mv(self, *names, **options):
        raise NotImplementedError("a bucket does not rename")

    rename = move = mv
