"""Keeps decoders of pictures quiet: the error about a file says what is wrong, with its name."""

import contextlib
import ctypes
import functools
import warnings

from PIL import Image

_MAPS = "/proc/self/maps"  # files that this process has in memory, at the ends of the lines


@functools.cache
def hush() -> None:
    """Silences PIL and libtiff in this process; own filters for warnings go before that.

    libtiff writes to standard error, at every reading and without the name of the file. PIL warns
    of damaged EXIF, which tells nothing, as in viewers, and for each size of a large picture, whose
    limit is `picture.Limits.pixels`.
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
