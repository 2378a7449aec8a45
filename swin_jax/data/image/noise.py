"""Silences image decoders, since errors already say what is wrong with which file."""

import contextlib
import ctypes
import functools
import warnings

from PIL import Image

_MAPS = "/proc/self/maps"  # lines that end in the files mapped into this process's memory


@functools.cache
def hush() -> None:
    """Silences PIL and libtiff in this process; the user's own warning filters take precedence.

    libtiff writes to standard error at every reading, without the name of the file. PIL warns of
    damaged EXIF, which is ignored here as in viewers, and of large images, which
    `picture.Limits.pixels` limits.
    """
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, append=True)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.", append=True)
    with contextlib.suppress(OSError, AttributeError):  # another system, or PIL without libtiff
        with open(_MAPS, encoding="utf-8", errors="surrogateescape") as file:
            paths = {line.split(maxsplit=5)[-1].strip() for line in file if "libtiff" in line}
        for path in paths:
            library = ctypes.CDLL(path)
            library.TIFFSetErrorHandler(None)
            library.TIFFSetWarningHandler(None)
