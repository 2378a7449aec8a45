"""Files that people give are never waited for, whoever reads them."""

import os

import pytest

from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.data.image import alignment
from swin_jax.evals import few_shot
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
