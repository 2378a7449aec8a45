"""Writes the archives beside it: a run of each kind of model, stopped at step 3, and what became of it afterwards.

    git worktree add ../before 9c335b1 && mkdir ../before/tests/golden/runs && cp make.py ../before/tests/golden/runs
    cd ../before && PYTHONPATH=$PWD python tests/golden/runs/make.py      (wrote the committed files, beside that copy)

`KINDS` has the commands. An archive holds a workdir as a kill leaves it after step 3, with an index of one picture if
the model is one of images and texts, and `expected.json`:

    arrays     CRC-32 of every array of the checkpoint
    losses     of the steps after it, in a run that nothing stopped
    outputs    the first numbers that the loaded model gives of a fixed input, see `call`
    exported   the same of the exported run, see `call_exported`

Saved runs name functions by the modules in which they lay, so that archives of an old commit show whether the runs of
people who used it can still be read. This file knows no module of the package but its launcher and outlives moves.
"""

import contextlib
import json
import os
import pathlib
import shutil
import sys
import tarfile
import tempfile
import zlib

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
STOP, TOTAL = 3, 6
LENGTH = (f"--config.total_steps={TOTAL}", f"--config.checkpoint.every={STOP}", "--config.checkpoint.keep=5",
          "--config.logs.every=1")  # fmt: skip
MODEL, TEXT, VISUAL = (f"--config.task.model{part}" for part in ("", ".text", ".visual"))
ONCE = [f"--config.evals.{style}.every=0" for style in ("openmoji", "fluent_3d", "fluent_flat")]
# Float32, small, and at rates with which six updates change a loss: experiments lower theirs for tiny batches.
KINDS = {
    "swin": ("swin_in1k.py:fake", "--config.base_lr=0.064", "--config.task.ema_decay=0.9", f"{MODEL}.dtype=float32",
             f"{MODEL}.embed_dim=8"),
    "simmim_v2_scanned": ("swinv2_giant.py:fake", "--config.peak_lr=0.5", f"{MODEL}.encoder.dtype=float32",
                          f"{MODEL}.encoder.embed_dim=8"),
    "clip_vit": ("clip_openai.py:fake", "--config.base_lr=4.0", f"{MODEL}.dtype=float32", f"{MODEL}.text_width=8",
                 f"{MODEL}.patch_size=8"),
    "clip_resnet": ("clip_emoji.py:fake", "--config.task.tx.schedule.warmup_steps=1", "--config.embed_dim=16",
                    f"{VISUAL}.width=2", f"{TEXT}.width=8", *ONCE),
    "clip_swin": ("clip_swin.py:fake", "--config.base_lr=0.125", "--config.embed_dim=16", f"{VISUAL}.embed_dim=8",
                  f"{VISUAL}.dtype=float32", f"{TEXT}.width=8", f"{TEXT}.dtype=float32"),
    "video_swin": ("video_swin_k400.py:fake", "--config.base_lr=0.008", f"{MODEL}.dtype=float32",
                   f"{MODEL}.embed_dim=8", "--config.task.tx.schedule.warmup_epochs=2.5"),
}  # fmt: skip
EXPORTED = ("swin", "clip_vit")
VOCABULARY, DISTINCT = 49408, 64


def command(kind: str, experiments: pathlib.Path, workdir: os.PathLike) -> tuple[str, ...]:
    """The flags of a kind of run, --config and --workdir first; the experiment may lie anywhere in its folder."""
    config, *flags = KINDS[kind]
    file, _, arguments = config.partition(":")
    (path,) = (path for path in experiments.rglob(file) if "def get_config(" in path.read_text())
    return f"--config={path}:{arguments}", f"--workdir={workdir}", *LENGTH, *flags


def checksums(tree) -> dict[str, int]:
    """The CRC-32 of every array, by its path."""
    import jax

    def name(path):
        return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)

    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {name(path): zlib.crc32(np.ascontiguousarray(leaf).tobytes()) for path, leaf in leaves}


def losses(workdir: pathlib.Path) -> dict[str, float]:
    """The loss of every step after the archived one, by step."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {str(line["step"]): line["train/loss"] for line in lines if "train/loss" in line and line["step"] > STOP}


def call(model, variables: dict) -> list[float]:
    """The first numbers that a loaded model gives of noise."""
    import jax

    rng = np.random.default_rng(0)

    def noise(*shape):
        return rng.normal(size=(2, *shape)).astype(np.float32)

    if hasattr(model, "text"):
        ids = rng.integers(1, VOCABULARY, (3, model.text.context_length)).astype(np.int32)
        inputs = noise(model.visual.image_size, model.visual.image_size, 3), ids
    elif hasattr(model, "backbone"):
        inputs = (noise(*model.backbone.image_size, 3),)
    else:
        inputs = (noise(model.image_size, model.image_size, model.in_channels),)
    return _numbers(jax.jit(model.apply)(variables, *inputs))


def call_exported(path: pathlib.Path) -> list[float]:
    """The first numbers that the file of an exported run gives of noise."""
    import jax

    model, rng = jax.export.deserialize(path.read_bytes()), np.random.default_rng(0)
    (batch,), _ = jax.tree.unflatten(model.in_tree, model.in_avals)
    return _numbers(model.call({k: rng.integers(0, 256, (8, *x.shape[1:])).astype(x.dtype) for k, x in batch.items()}))


def _numbers(tree) -> list[float]:
    import jax

    return [float(x) for leaf in jax.tree.leaves(tree) for x in np.asarray(leaf, np.float32).ravel()[:32]]


def _read(path: pathlib.Path) -> dict:
    """The arrays of a checkpoint."""
    import jax
    import orbax.checkpoint as ocp

    tree, handler = {}, ocp.PyTreeCheckpointHandler()
    for part in ("params", "ema", "rest"):
        if (path / part).exists():
            shapes = handler.metadata(path / part).tree
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
            arguments = ocp.args.PyTreeRestore(restore_args=as_numpy)
            tree[part] = ocp.Checkpointer(handler).restore(path / part, args=arguments)
    return tree


@contextlib.contextmanager
def _small_vocabulary():
    """Rows of the token embedding start as copies of a few, because random ones of 49,408 tokens do not compress."""
    import flax.linen as nn
    import jax.numpy as jnp

    usual = nn.initializers.normal

    def repeated(*arguments):
        def init(key, shape, *dtype):
            if shape[0] != VOCABULARY:
                return usual(*arguments)(key, shape, *dtype)
            return jnp.tile(usual(*arguments)(key, (DISTINCT, shape[1]), *dtype), (VOCABULARY // DISTINCT, 1))

        return init

    nn.initializers.normal = repeated
    yield
    nn.initializers.normal = usual


def make(kind: str, experiments: pathlib.Path, scratch: pathlib.Path) -> None:
    """Writes one archive."""
    from PIL import Image

    import swin_jax
    from swin_jax import launch

    def run(*flags):
        if status := launch.run(["launch", *command(kind, experiments, workdir), *flags]):
            sys.exit(status)

    workdir = scratch / kind
    with _small_vocabulary():
        run()
    expected = {"losses": losses(workdir), "arrays": checksums(_read(workdir / "checkpoints" / str(STOP)))}
    shutil.rmtree(workdir / "checkpoints" / str(TOTAL))
    model, variables = swin_jax.load(weights=workdir)
    expected["outputs"] = call(model, variables)
    if hasattr(model, "text"):
        (scratch / "pictures").mkdir(exist_ok=True)
        Image.fromarray(np.full((40, 40, 3), 128, np.uint8)).save(scratch / "pictures" / "grey.png")
        run(f"--index={scratch / 'pictures'}")
    if kind in EXPORTED:
        run(f"--export={scratch / 'model.stablehlo'}")
        expected["exported"] = call_exported(scratch / "model.stablehlo")
    (workdir / "expected.json").write_text(json.dumps(expected))
    kept = ("checkpoints", "config.json", "header.json", "metrics.jsonl", "index.npz", "expected.json")
    with tarfile.open(HERE / f"{kind}.tar.xz", "w:xz", preset=9) as archive:
        for name in kept:
            if (workdir / name).exists():
                archive.add(workdir / name, name, filter=_of_nobody)


def _of_nobody(file: tarfile.TarInfo) -> tarfile.TarInfo:
    file.mtime, file.uid, file.gid, file.uname, file.gname = 0, 0, 0, "", ""
    return file


def main():
    # As in tests/conftest.py, before JAX starts, but on one device: checkpoints of eight are in many small pieces.
    os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    with tempfile.TemporaryDirectory() as scratch:
        for kind in sys.argv[1:] or KINDS:
            make(kind, HERE.parents[2] / "experiments", pathlib.Path(scratch))


if __name__ == "__main__":
    main()
