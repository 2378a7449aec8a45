"""Text in plots: names are drawn as they are, whatever signs or letters they have."""

import contextlib
import warnings
from collections.abc import Iterator


def plain(text: str) -> str:
    """A text that matplotlib draws as it is: a dollar sign begins no formula."""
    return text.replace("$", r"\$")


@contextlib.contextmanager
def quiet_glyphs() -> Iterator[None]:
    """Context in which a figure is drawn without a warning for each letter that the font lacks;
    such letters become boxes.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
