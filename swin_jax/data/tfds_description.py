"""Checks the description of a TFDS data set before TFDS reads it, since features.json names
classes that TFDS would import.

Only TFDS's own features are allowed, so that a downloaded folder cannot run code
(tensorflow-datasets 4.9.10 imports the module of any unknown name).
"""

import json
from pathlib import Path
from typing import Any

from swin_jax.core.errors import UserError

MAX_BYTES = 2**26  # of either file
_OWN = "tensorflow_datasets.core.features."
FEATURES = frozenset(
    _OWN + name
    for name in (
        "audio_feature.Audio",
        "bounding_boxes.BBoxFeature",
        "class_label_feature.ClassLabel",
        "feature.Tensor",
        "features_dict.FeaturesDict",
        "image_feature.Image",
        "labeled_image.LabeledImage",
        "scalar.Scalar",
        "sequence_feature.Sequence",
        "tensor_feature.Tensor",
        "text_feature.Text",
        "translation_feature.Translation",
        "translation_feature.TranslationVariableLanguages",
        "video_feature.Video",
    )
)
# Keys that name a class, in old and new files.
_NAMING = ("type", "pythonClassName", "python_class_name")
_JSON = ("content", "json")  # keys of strings that contain JSON


def read_features(directory: str) -> dict[str, Any]:
    """Reads and checks a data set's features.json.

    Args:
        directory: Folder of the data set, ending in its version.

    Returns:
        Its content. Raises UserError if features.json or dataset_info.json cannot be read or is
        not a JSON object, or if a feature is not one of FEATURES.
    """
    info = _read(Path(directory) / "dataset_info.json")
    if not isinstance(info.get("name", ""), str):
        raise UserError(
            f"{directory}/dataset_info.json does not describe a data set: its name is not text"
        )
    path = Path(directory) / "features.json"
    content = _read(path)
    todo = [content]
    while todo:
        value = todo.pop()
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if key in _JSON and isinstance(inner, str):
                inner = _parse(path, inner)
            if isinstance(inner, dict) or (isinstance(inner, list) and key not in _NAMING):
                todo.append(inner)
            elif key in _NAMING and not (isinstance(inner, str) and inner in FEATURES):
                raise UserError(
                    f"{path} names a feature that is not one of TFDS's own for images, "
                    f"videos and texts, so it is not loaded: {repr(inner)[:100]}"
                )
    return content


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES or not path.is_file():
            raise UserError(f"{path} is not a file of at most {MAX_BYTES} bytes")
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    content = _parse(path, text)
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged, prepare the data set again: it is not a JSON object")
    return content


def _parse(path: Path, text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (
        ValueError,
        RecursionError,
    ) as error:  # not UTF-8, not JSON, or numbers of thousands of digits
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged, prepare the data set again: {reason}") from error
