"""Names of people in plots: drawn as they are, whatever matplotlib makes of signs in them."""

import contextlib
import warnings
from collections.abc import Iterator


def plain(text: str) -> str:
    """A text that matplotlib draws as it is: a dollar sign begins no formula."""
    return text.replace("$", r"\$")


@contextlib.contextmanager
def quiet_glyphs() -> Iterator[None]:
    """A block that draws a figure; letters that the font lacks become boxes without a warning for
    each of them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
