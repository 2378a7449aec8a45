"""Finds the files of weights in a folder of a hub, and the config beside them.

`clip.config` and its counterparts apply such a config to a model; `processors` applies it to
pictures and texts.
"""

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from swin_jax.core import text_files
from swin_jax.core.errors import UserError
from swin_jax.core.ranges import PositiveInt, refusal, shown
from swin_jax.pretrained.files import choose
from swin_jax.pretrained.files import read as files

OPEN_CLIP, TRANSFORMERS, TIMM = "open_clip", "transformers", "timm"
PIXELS = PositiveInt | tuple[PositiveInt, PositiveInt]  # the type of a size
_ORIGIN, _NAMES = "_weights", "_class_names"
_INDEX = ".index.json"
_ADAPTER = "adapter_config.json"
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".npz")
_PLAIN = ("model.safetensors", "pytorch_model.bin")
_OF_OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
# Fields that transformers writes into every config and that do not change a model's outputs.
IDLE = frozenset(
    """_attn_implementation _attn_implementation_autoset _commit_hash _name_or_path architectures
    attn_implementation auto_map bad_words_ids begin_suppress_tokens bos_token_id
    chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id diversity_penalty
    do_sample dtype early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty
    finetuning_task forced_bos_token_id forced_eos_token_id id2label is_encoder_decoder label2id
    length_penalty max_length min_length model_type no_repeat_ngram_size num_beam_groups num_beams
    num_return_sequences output_attentions output_hidden_states output_scores pad_token_id prefix
    problem_type remove_invalid_values repetition_penalty return_dict return_dict_in_generate
    sep_token_id suppress_tokens task_specific_params temperature tf_legacy_loss
    tie_encoder_decoder tie_word_embeddings tokenizer_class top_k top_p torch_dtype torchscript
    transformers_version typical_p use_bfloat16 transformers.js_config use_cache
    gradient_checkpointing num_labels""".split()
)
# The same, as long as they have the value that turns them off.
IDLE_IF = {"add_cross_attention": False, "is_decoder": False, "pruned_heads": {}}


@dataclasses.dataclass(frozen=True)
class Config:
    """A config that lies beside weights.

    Attributes:
        kind: The library that wrote it: `OPEN_CLIP`, `TRANSFORMERS` or `TIMM`.
        path: Path of the file.
        fields: Content of the file.
    """

    kind: str
    path: Path
    fields: Mapping[str, Any]

    def refuse(self, name: str, value: Any, reason: str = "is not supported here") -> UserError:
        """Makes the error for a field that is not supported here."""
        return UserError(f"{self.path}: {name}={shown(value)} {reason}")


def weights_in(folder: str | os.PathLike) -> Path | None:
    """The file of weights in a folder of a hub, or the index of several files; None for a folder
    of another kind.

    In a cache folder of the hub, models--OWNER--NAME, the only version is used.

    Raises:
        UserError: The folder is one of a hub but has no file of weights, or it has an adapter,
            which would change them; or a cache has no version, or several.
    """
    folder = Path(folder)
    if (folder / "blobs").is_dir() and (folder / "snapshots").is_dir():
        return _weights_in_cache(folder)
    if os.path.lexists(folder / _ADAPTER):
        raise UserError(
            f"{folder} holds an adapter ({_ADAPTER}), which is not applied here: merge "
            "it into its model (peft's merge_and_unload) and save that, or give the "
            "file of the weights without it"
        )
    config, clip = (
        read_json(folder / "config.json") or {},
        read_json(folder / "open_clip_config.json"),
    )
    if not (clip and _is_open_clip(clip)) and not {"model_type", "architecture"} & config.keys():
        return None
    # timm's repositories keep the image tower alone beside the whole CLIP of open_clip.
    names = (*_PLAIN, *_OF_OPEN_CLIP) if "model_type" in config else (*_OF_OPEN_CLIP, *_PLAIN)
    for name in names:
        for file in (folder / name, folder / f"{name}{_INDEX}"):
            if file.is_file():
                return file
    raise UserError(f"{folder} holds neither {_PLAIN[0]} nor {_PLAIN[1]}{_others_in(folder)}")


def _weights_in_cache(folder: Path) -> Path | None:
    versions = sorted(path for path in (folder / "snapshots").iterdir() if path.is_dir())
    if len(versions) != 1:
        listed = ", ".join(map(str, versions[:3])) or "none is there"
        raise UserError(
            f"{folder} is a cache folder of the hub; give the folder of one version: {listed}"
        )
    return weights_in(versions[0])


def _others_in(folder: Path) -> str:
    """Advice on the other files of weights in a folder; '' if there are none."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix in _SUFFIXES)
    if parts := [name for name in names if re.search(r"-\d+-of-\d+\.", name)]:
        return f"; {parts[0]} is one of several parts, whose index ({_PLAIN[0]}{_INDEX}) is missing"
    return f"; give one of its files, {', '.join(names[:3])}" if names else ""


def locate(source: str | os.PathLike) -> Path:
    """The file of weights for a path: the path itself, or the file in a folder of a hub.

    Raises:
        UserError: The path is a folder of another kind.
    """
    path = Path(source).expanduser()
    if not path.is_dir():
        return path
    found = weights_in(path)
    if found is None:
        raise UserError(
            f"{path} is not a folder of a hub, with config.json and model.safetensors: give one, "
            "or a file of weights"
        )
    return found


def read(path: Path, key: str | None = None) -> dict[str, np.ndarray]:
    """Reads a file of weights, or all files that an index (`model.safetensors.index.json`) lists.

    Args:
        path: The file, or the index.
        key: The weights to take from a file that holds several, see `files.read.read`.

    Returns:
        {name: array}, see `files.read.read`.

    Raises:
        UserError: `files.read.read` refuses a file, the index is invalid, or it does not list
            exactly the files and arrays that are there.
    """
    if not path.name.endswith(_INDEX):
        return files.read(path, key)
    found: dict[str, np.ndarray] = {}
    for shard, names in _shards(path).items():
        found |= _as_listed(files.read_whole(shard), names, shard, path)
    return files.unwrapped(choose.part(found, key, ()) if key else found, path)


def _shards(index: Path) -> dict[Path, set[str]]:
    """{file: names of its arrays}, in the order of the index."""
    listed = (read_json(index) or {}).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise UserError(f"{index} lists no weights: it has no weight_map")
    files: dict[Path, set[str]] = {}
    for name, file in listed.items():
        if (
            not isinstance(file, str)
            or Path(file).name != file
            or file in ("", ".", "..")
            or len(file) > 255
        ):
            raise UserError(
                f"{index} lists {name[:200]} in {shown(file)}, which is not the name of a file "
                "beside it"
            )
        files.setdefault(index.with_name(file), set()).add(name)
    for file in files:
        if not file.is_file():
            raise UserError(
                f"{index} lists {file.name}, which is missing: all {len(files)} files are needed"
            )
    return files


def _as_listed(
    arrays: Mapping[str, np.ndarray], names: set[str], shard: Path, index: Path
) -> dict[str, np.ndarray]:
    """The arrays of one file; raises UserError unless they are those that the index lists."""
    if names != arrays.keys():
        listed, there = sorted(names - arrays.keys()), sorted(arrays.keys() - names)
        what = f"{listed[0]}, which is not in it" if listed else f"no {there[0]}, which is in it"
        raise UserError(f"{index} lists for {shard.name} {what}")
    return dict(arrays)


def config_beside(path: Path) -> Config | None:
    """The config beside a file of weights; None if there is none.

    open_clip's config is preferred to a config.json, except for files that have the names that
    transformers uses.

    Raises:
        UserError: A config cannot be read.
    """
    found = []
    clip_path, plain_path = path.with_name("open_clip_config.json"), path.with_name("config.json")
    clip, plain = read_json(clip_path), read_json(plain_path) or {}
    if clip and _is_open_clip(clip):
        found.append(Config(OPEN_CLIP, clip_path, clip))
    if "model_type" in plain:
        is_first = path.name.startswith(("model", "pytorch_model"))
        found.insert(0 if is_first else len(found), Config(TRANSFORMERS, plain_path, plain))
    elif "architecture" in plain:
        found.append(Config(TIMM, plain_path, plain))
    return found[0] if found else None


def _is_open_clip(config: Mapping[str, Any]) -> bool:
    return bool({"model_cfg", "vision_cfg"} & config.keys())


def read_json(path: Path) -> dict | None:
    """The JSON object in a file; None if there is no such file.

    Raises:
        UserError: The file cannot be read or is not a JSON object, or it is a broken link. The
            files in a hub's cache are links, so a broken one means that a file was lost.
    """
    if not os.path.lexists(path):
        return None
    try:
        found = json.loads(text_files.read(path))
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).removeprefix(f"cannot read {path}: ").split())
        raise UserError(f"{path} cannot be read: {reason}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}, not a JSON object")
    return found


def check_types(
    path: str | os.PathLike, fields: Mapping[str, Any], types: Mapping[str, Any], prefix: str = ""
) -> None:
    """Raises UserError for a field whose value has the wrong type.

    Args:
        path: Path of the config.
        fields: Part of its content.
        types: {name: annotation}, see `core.ranges.refusal`. A field may be absent or None.
        prefix: Text before the names, 'vision_cfg.' for example.
    """
    for name, hint in types.items():
        value = fields.get(name)
        if value is not None and (wanted := refusal(hint, value)):
            raise UserError(f"{path}: {prefix}{name}={shown(value)} must be {wanted}")


def attach_origin(model: Any, weights: str | os.PathLike | None) -> None:
    """Makes a model remember where its weights came from.

    The origin is not a field, so models that differ only in it are equal.
    """
    object.__setattr__(model, _ORIGIN, None if weights is None else os.fspath(weights))


def origin(model: Any) -> str | None:
    """The argument `weights` that `load` made a model with; None for random weights."""
    return vars(model).get(_ORIGIN)


def attach_class_names(model: Any, names: tuple[str, ...]) -> None:
    """Makes a model remember the class names in the file of its weights; see `attach_origin`."""
    object.__setattr__(model, _NAMES, names)


def told_class_names(model: Any) -> tuple[str, ...]:
    """The class names that came with a model's weights; () if the file has none."""
    return vars(model).get(_NAMES, ())
