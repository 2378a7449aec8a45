"""Prepares ImageNet-22K (the fall 2011 release): 14.2 million images of 21,841 classes.

    python -m swin_jax.data.builders.imagenet22k --data_dir DIR --source PATH

PATH is fall11_whole.tar (1.3 TB, from https://image-net.org, an account is needed), or a folder
of the synsets' nXXXXXXXX.tar files or folders. The result takes as much space. Image bytes are
stored unchanged, including the few unreadable files of the release, which are replaced and
counted when they are read.

License: the ImageNet terms of access (non-commercial research and education only, no
redistribution). Labels number the 21,841 synsets in sorted order. Paper: Deng et
al., ImageNet (CVPR 2009).
"""

import argparse
from pathlib import Path

from swin_jax.core.errors import UserError
from swin_jax.data.builders import synsets, write
from swin_jax.data.builders.imagenet2012 import LICENSE, labeled

VERSION = "1.0.0"
NUM_CLASSES = 21841
NUM_EXAMPLES = 14197122


def build(data_dir: str, source: str, overwrite: bool = False) -> Path:
    """Writes the data set, whose only split is 'train'.

    Args:
        data_dir: Folder of data sets.
        source: The tar of tars, or a folder of the synsets' tars or folders.
        overwrite: True to replace an existing data set.

    Returns:
        The path of the data set. Raises UserError if there is nothing to read.
    """
    import tensorflow_datasets as tfds

    path = Path(source).expanduser()
    write.refuse_existing(Path(data_dir).expanduser() / "imagenet22k" / VERSION, overwrite)
    if not path.exists():
        raise UserError(f"there is no {path}; give fall11_whole.tar or the folder of its synsets")
    files = synsets.open_synsets(path)
    whole = len(files) == NUM_CLASSES
    if not whole:
        print(f"warning: {len(files)} synsets, the full set has {NUM_CLASSES}")
    features = {
        "image": tfds.features.Image(),
        "label": tfds.features.ClassLabel(names=list(files)),
        "file_name": tfds.features.Text(),
    }
    splits = {"train": write.Split(labeled(files), NUM_EXAMPLES if whole else None)}
    description = "ImageNet-22K (fall 2011), images as distributed, labels in sorted synset order."
    return write.write(
        data_dir,
        "imagenet22k",
        VERSION,
        features,
        splits,
        overwrite,
        description=description,
        license=LICENSE,
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", required=True, help="fall11_whole.tar, or a folder of synsets")
    write.run(lambda flags: build(flags.data_dir, flags.source, flags.overwrite), parser)


if __name__ == "__main__":
    main()
