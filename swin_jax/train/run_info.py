"""The run header: what ran, on what, with which versions.
Printed at the start and kept as header.json.
"""

import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax
import numpy as np
from etils import epath

from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten, weights_checksum
from swin_jax.train.clock import Clock, peak_flops

_PACKAGES = (
    "swin_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "numpy",
)
_HUGE_PAGES = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
_TUNABLE = "glibc.malloc.hugetlb"


def facts(
    config, described: dict[str, Any], mesh, frozen: Any, sources: dict[str, str] | None = None
) -> dict[str, Any]:
    """Everything the header says, as JSON values.

    Args:
        config: The resolved config; its `notice`, if it has one, is said in the log.
        described: The task's own facts.
        mesh: The device mesh.
        frozen: Arrays that steps only read, whole on this process;
            their checksum is compared on resume.
        sources: Names of frozen models and the paths of their weights.
    """
    device = jax.devices()[0]
    processes = "1 process" if jax.process_count() == 1 else f"{jax.process_count()} processes"
    notices = [config.get("notice"), huge_pages_note() if device.platform == "cpu" else None]
    found = {
        "devices": f"{jax.device_count()} x {device.device_kind} ({processes})",
        "device_kind": device.device_kind,
        "mesh": dict(mesh.shape),
        **described,
        "notes": [*described.get("notes", ()), *filter(None, notices)],
        "batch_size": config.batch_size,
        "total_steps": config.total_steps,
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "revision": _revision(),
    }
    if jax.tree.leaves(frozen):
        found["frozen"] = {"sha256": weights_checksum(frozen), "sources": sources or {}}
    return found


def huge_pages_note() -> str | None:
    """Advice for runs on the CPU of a Linux that gives large pages to programs that ask for them.

    XLA takes new memory for every step, and in small pages the kernel clears it more slowly than
    many a step computes. glibc asks for large ones from its version 2.35 on, if the environment
    says so when the program starts.
    """
    library, version = platform.libc_ver()
    asked = _TUNABLE in os.environ.get("GLIBC_TUNABLES", "")
    try:
        on_demand = "[madvise]" in _HUGE_PAGES.read_text()
    except OSError:
        return None
    numbers = tuple(map(int, version.split("."))) if library == "glibc" else (0,)
    if asked or not on_demand or numbers < (2, 35):
        return None
    return f"with GLIBC_TUNABLES={_TUNABLE}=1 in the environment, steps on this CPU take less time"


def lines(found: dict[str, Any]) -> list[str]:
    """The header as text."""
    model = [f"{found['parameters']:,} parameters"] if "parameters" in found else []
    if "gflops_per_image" in found:
        example = found.get("example", "image")
        model.append(f"{found['gflops_per_image']:.3f} GFLOPs per {example}")
    packages = "  ".join(f"{name} {version}" for name, version in found["packages"].items())
    mesh = " x ".join(f"{axis} {size}" for axis, size in found["mesh"].items())
    frozen = [f"frozen    {_describe_frozen(found['frozen'])}"] if "frozen" in found else []
    return [
        f"devices   {found['devices']}, mesh {mesh}",
        f"model     {', '.join(model) or 'see the config'}; batch size {found['batch_size']}",
        *frozen,
        *(f"note      {text}" for text in found.get("notes", ())),
        f"versions  python {found['python']}  {packages}",
        f"source    {found['revision']}",
    ]


def data_line(data: Any, evaluations: dict[str, Any]) -> str:
    """The numbers of records and classes that a run reads, and of the records of each evaluation.

    Args:
        data: The training data.
        evaluations: Evaluations by name; those that have no `data` of a known length are left out.
    """
    parts = [f"{data.num_examples:,} records"] if hasattr(data, "num_examples") else []
    if names := getattr(data, "class_names", ()):
        shown = ", ".join(map(str, names[:8])) + (", ..." if len(names) > 8 else "")
        parts.append(f"{len(names):,} classes ({shown})")
    sets = {name: getattr(item, "data", None) for name, item in evaluations.items()}
    lengths = [f"{k} {v.num_examples:,}" for k, v in sets.items() if hasattr(v, "num_examples")]
    held = [f"evaluations: {', '.join(lengths)}"] if lengths else []
    return f"data      {'; '.join([', '.join(parts) or 'see the config', *held])}"


def write(workdir: epath.Path, found: dict[str, Any]) -> None:
    """Writes header.json."""
    storage.write(workdir / "header.json", json.dumps(found, indent=1) + "\n")


def check_frozen(
    workdir: epath.Path, found: dict[str, Any], frozen: Any, saved: Any = None
) -> None:
    """Raises UserError if the frozen arrays changed since the run was started.

    Args:
        workdir: Workdir, which may hold the header of the run that is resumed.
        found: The facts of this run.
        frozen: Frozen arrays of the run.
        saved: `frozen` of the facts that the run's checkpoint was saved with,
            for a header that is gone.
    """
    path = workdir / "header.json"
    before = storage.read_object(path).get("frozen") if path.exists() else None
    before = saved if before is None else before
    if before is None:
        return
    whole = (
        isinstance(before, dict)
        and isinstance(before.get("sha256"), str)
        and isinstance(before.get("sources"), dict)
    )
    if not (whole or isinstance(before, str)):
        raise UserError(
            f"{path} is damaged: `frozen` is not a checksum. "
            "Restore it from a copy, or move it away"
        )
    now = found.get("frozen")
    # The header is older than sources, and its checksum than shapes and dtypes.
    if isinstance(before, str):
        before = {"sha256": before, "sources": {}}
        if before["sha256"] == _checksum_of_bytes(frozen):
            return
    if now is None or now["sha256"] != before["sha256"]:
        given = _describe_frozen(now) if now else "none"
        raise UserError(
            f"the frozen weights are not those that {workdir} was started with: "
            f"{_describe_frozen(before)}; given are {given}"
        )


def _describe_frozen(frozen: dict[str, Any]) -> str:
    """The source of frozen weights and the beginning of their checksum."""
    sources = [
        f"{name} from {path or 'random numbers'}" for name, path in frozen["sources"].items()
    ]
    return ", ".join([*sources, f"sha256 {frozen['sha256'][:12]}..."])


def clock(batch_size: int, found: dict[str, Any]) -> Clock:
    """A clock that knows the FLOPs of a step, if the task does, and the peak of the devices,
    if it is known.
    """
    flops = 1e9 * found.get("train_gflops", 0) * batch_size
    return Clock(batch_size, flops, peak_flops(found["device_kind"]) * jax.device_count())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _revision() -> str:
    """The git revision of the source, with a mark if it was changed;
    'unknown' outside a checkout.
    """
    command = [
        "git",
        "-C",
        str(pathlib.Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def _checksum_of_bytes(tree: Any) -> str:
    """The checksum in headers that were written before `weights_checksum`."""
    digest = hashlib.sha256()
    for path, leaf in flatten(tree).items():
        digest.update(path.encode() + np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
