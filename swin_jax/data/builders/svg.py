"""Renders SVG drawings with resvg, identically on every machine."""

from swin_jax.core.errors import UserError, extra


def check_renderer(name: str) -> None:
    """Raises UserError if resvg-py is not installed; `name` is the extra to install."""
    _renderer(name)


def rasterize(text: str, width: int, height: int, name: str) -> bytes:
    """Renders a drawing.

    Args:
        text: An SVG file.
        width: Width of the result in pixels; the drawing keeps its aspect ratio.
        height: Height of the result in pixels.
        name: Name of the drawing, for the error.

    Returns:
        A PNG file, RGBA.

    Raises:
        UserError: The drawing is not valid, or resvg-py is not installed.
    """
    size = dict(width=width, height=height)
    # Without dpi, files sized in points fail; system fonts would differ between machines.
    try:
        return bytes(
            _renderer().svg_to_bytes(svg_string=text, **size, dpi=96, skip_system_fonts=True)
        )
    except ValueError as error:
        raise UserError(f"{name} cannot be rendered ({error})") from error


def _renderer(name: str = "emoji"):
    with extra(name, "drawings are rendered with resvg"):
        import resvg_py
    return resvg_py
