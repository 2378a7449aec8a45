"""Files that people give are never waited for, whoever reads them."""

import json
import os
import time

import pytest

from swin_jax.core import storage, text_files
from swin_jax.core.errors import UserError
from swin_jax.data.image import alignment
from swin_jax.evals.probes import few_shot
from swin_jax.evals.prompts import class_names
from swin_jax.pretrained.swin import imagenet22k

READERS = (alignment.read_landmarks, few_shot.load_indices, class_names.read, imagenet22k.read_map)


@pytest.mark.parametrize("read", [*READERS, storage.read_object], ids=lambda read: read.__module__)
def test_a_pipe_or_device_is_one_line(read, tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", "/dev/zero"):
        with pytest.raises(UserError, match="pipe|device") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_a_key_that_is_there_twice_is_found_at_once():
    """Each key was counted among all of them: a minute for lists of a few megabytes."""
    pairs = [(str(number), 0) for number in (*range(30_000), 29_999)]
    text = "{" + ", ".join(f"{json.dumps(key)}: {value}" for key, value in pairs) + "}"
    start = time.process_time()
    for parse in (text_files.parse_json, text_files.parse_literal):
        with pytest.raises(ValueError, match="the key '29999' appears twice"):
            parse(text)
    assert time.process_time() - start < 5
