"""Makes a checkpoint fit a model of another window, image size or classifier before fine-tuning.

The two ways of microsoft/Swin-Transformer. Supervised (`load_pretrained` of utils.py): position
tables are resized with PyTorch's bicubic interpolation; a head of other classes becomes zero, or
the 1,000 rows of a 22K head. SimMIM's (utils_simmim.py): the encoder is taken out of the pretrained
file, tables are resized over a geometric grid, and the head keeps its own random start. How tables
are resized is always said by the caller; a continuous position bias (Swin V2) needs no resizing, it
is computed again for the new window.
"""

import functools
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import numpy as np

from swin_jax.core.errors import UserError, warn
from swin_jax.core.sizes import per_axis, simplest
from swin_jax.ops import window_geometry
from swin_jax.pretrained import beside, recognize
from swin_jax.pretrained.swin import adapt, buffers, config, imagenet22k, infer, layouts, windows
from swin_jax.pretrained.swin import convert as swin
from swin_jax.pretrained.swin.resize import resize_rows

RESIZES = ("bicubic", "geometric")


def remap(
    state_dict: Mapping[str, np.ndarray],
    model,
    resize: str | None = None,
    rows: np.ndarray | None = None,
    made_for=None,
) -> dict[str, np.ndarray]:
    """Resizes position tables and adapts the head to a Swin;
    everything else stays, and is checked by `from_official`.

    Args:
        state_dict: {name: array} of a Swin of any window, image size and number of classes,
            in any layout.
        model: The `models.swin.Swin` to fill.
        resize: 'bicubic' or 'geometric', see `pretrained.swin.resize`; absolute positions are
            resized bicubically with either. None where everything should fit.
        rows: (1000,) rows of a 22K head that are the 1K classes,
            see `pretrained.swin.imagenet22k`; None: a zero head.
        made_for: Anything with the fields of the Swin that the weights are of, where that is known;
            see `windows.read_tables`.

    Returns:
        The state dict for `pretrained.swin.convert.from_official`. A head of zeros, fresh norms, a
        first convolution of other channels and resized tables are told in warnings, and weights of
        timm or torchvision in a model that pads, or makes windows smaller, in another way.

    Raises:
        UserError: Tables of another window or image size without `resize`: the choices.
    """
    if not model.out_norms:
        layouts.refuse_segmenter(state_dict)
    tables = windows.read_tables(layouts.official_names(state_dict)[0], len(model.depths), made_for)
    library = layouts.library(state_dict)
    state_dict = layouts.to_official_names(state_dict)
    _check_family(state_dict, model)  # before anything is said of heads and norms
    if library in layouts.RULES:
        tell_library(model, library)
    state_dict = adapt.adapt_norms(adapt.adapt_channels(state_dict, model.in_channels), model)
    state_dict = adapt.adapt_head(state_dict, 0 if model.out_norms else model.num_classes, rows)
    return resize_tables(state_dict, model, resize, tables)


def resize_tables(
    state_dict: Mapping[str, np.ndarray], model, resize: str | None, tables: windows.Tables
) -> dict[str, np.ndarray]:
    """Resizes bias tables and absolute positions, as `remap` says.

    Args:
        state_dict: State dict in official names.
        model, resize: The same as in `remap`.
        tables: Windows and grid of the tables.
    """
    if resize not in (None, *RESIZES):
        raise UserError(f"resize={resize!r} is not one of {', '.join(map(repr, RESIZES))}")
    _check_family(state_dict, model)
    grids, sizes = window_geometry.stage_geometry(model)
    resized = {}
    for name, shape in swin.official_shapes(model).items():
        table = state_dict.get(name)
        if table is None or table.ndim != len(shape) or table.shape[-1] != shape[-1]:
            continue
        if name.endswith("relative_position_bias_table"):
            stage = int(name.split(".")[1])
            old = shape_of(
                name, windows.windows_of_rows(len(table)), tables.windows[stage], sizes[stage]
            )
            if old != sizes[stage]:
                _require_choice(resize, name, table, shape, old, model)
                resized[name] = resize_rows(table, _table(old), _table(sizes[stage]), resize)
        if name == "absolute_pos_embed":
            old = shape_of(name, windows.shapes_of_rows(table.shape[1]), tables.grid, grids[0])
            if old != grids[0]:
                _require_choice(resize, name, table, shape, old, model)
                resized[name] = resize_rows(table[0], old, grids[0], "bicubic")[None]
    if resized:
        warn(
            f"{len(resized)} position tables were resized ({resize}) to "
            "another window or image size"
        )
    return dict(state_dict) | resized


def _table(window: tuple[int, ...]) -> tuple[int, ...]:
    """Height and width of the bias table of a window."""
    return tuple(2 * size - 1 for size in window)


def shape_of(
    name: str,
    candidates: list[tuple[int, ...]],
    told: tuple[int, ...] | None,
    wanted: tuple[int, ...],
) -> tuple[int, ...]:
    """The shape of a table of the weights, by the rule of timm where nothing tells it:
    a square, or else the model's.

    Raises:
        UserError: Rows that are those of a square and of the model, which is not square;
            or of neither.
    """
    if told is not None or wanted not in candidates:
        return windows.choose(name, candidates, [told])
    if len(set(wanted)) > 1 and len(set(candidates[0])) == 1:
        square, other = (" x ".join(map(str, shape)) for shape in (candidates[0], wanted))
        raise UserError(
            f"it is unknown whether {name} is of {square} or of {other}, which the model has: "
            "give the weights with their buffers (relative_position_index), or as a workdir"
        )
    return wanted


def _check_family(state_dict: Mapping[str, np.ndarray], model) -> None:
    if other := recognize.recognize(state_dict, window_geometry.num_axes(model)):
        raise UserError(other)
    swin.check_sizes(state_dict, model)


def _require_choice(
    resize: str | None,
    name: str,
    table: np.ndarray,
    shape: tuple[int, ...],
    old: tuple[int, ...],
    model,
) -> None:
    """Raises UserError if a table of the shape `old` must be resized, and nobody said how."""
    if resize is not None:
        return
    of, keep = "image size", ""
    if table.ndim == 2:
        of, stage = "window", int(name.split(".")[1])
        axes = window_geometry.num_axes(model)
        configured = window_geometry.per_stage(model.window_size, len(model.depths), axes)[stage]
        if configured == old:
            map_ = f"the map of this stage is smaller than {simplest(configured)}"
            of = f"window (at image_size={model.image_size} {map_})"
            keep = ", or keep the weights' image size"
        else:
            keep = f", or keep the weights' window of {simplest(old)}"
    raise UserError(
        f"{name} is {table.shape} in the weights and {shape} in the model, for another {of}; "
        "choose resize='bicubic' (the official supervised fine-tuning) or resize='geometric' "
        f"(SimMIM's fine-tuning), in an experiment --config.init_from.convert.resize=bicubic{keep}"
    )


def tell_library(model, library: str) -> None:
    """Warns where a model's numbers differ from those that timm or torchvision has
    with the same weights.

    timm pads a map after it was shifted, the official code and torchvision before. And timm's
    windows shrink axis by axis, torchvision's never, the official ones as squares.

    Args:
        model: The `models.swin.Swin` that the weights go into.
        library: One of `layouts.RULES`.
    """
    grids, sizes = window_geometry.stage_geometry(model)
    rule = layouts.RULES[library]
    made_there = SimpleNamespace(
        **{
            name: getattr(model, name)
            for name in ("image_size", "patch_size", "merge_size", "depths", "window_size")
        },
        small=rule,
    )
    theirs = window_geometry.stage_geometry(made_there)[1]
    padded, unlike = [], []
    for stage, own in enumerate(window_geometry.stage_rules(model)):
        if model.depths[stage] < 2 and library == "timm":  # no block is shifted
            continue
        grid = grids[stage]
        ours = window_geometry.fit(grid, sizes[stage], own)
        if ours != window_geometry.fit(grid, theirs[stage], rule):
            unlike.append(stage)
        elif (
            library == "timm"
            and any(ours[1])
            and any(side % size for side, size in zip(grid, ours[0]))
        ):
            padded.append(stage)
    if padded:
        maps = ", ".join(f"{grids[s]} in windows of {sizes[s]}" for s in padded)
        warn(
            f"timm's weights at image_size={model.image_size}: maps are not whole windows "
            f"({maps}); timm pads them after the shift and this model before, as the "
            "official code does, so that numbers differ from timm's by that. An image size "
            "of whole windows avoids it"
        )
    if unlike:
        stages = ", ".join(f"layers.{s}" for s in unlike)
        warn(
            f"{library}'s weights at image_size={model.image_size}: in {stages} windows no "
            f"smaller than the map are treated as small={model.small!r} says, so that numbers "
            f"differ from {library}'s; small={rule!r} is {library}'s rule"
        )


def tell_scales(trained: tuple | None, model) -> None:
    """Warns where a continuous bias will see coordinates at another scale than it was trained with.

    Args:
        trained: The window that scaled the coordinates of each stage in training, an int or one int
            per axis; None where nothing tells.
        model: The `models.swin.Swin` that the weights go into.
    """
    if trained is None or not model.continuous_bias:
        return
    scales = buffers.coordinate_windows(model)
    axes = len(scales[0])
    trained = [per_axis(scale, axes) for scale in trained]
    if scales != trained:
        plain = tuple(map(simplest, trained))
        warn(
            "the continuous position bias was trained with coordinates scaled by windows of "
            f"{plain}; for the new window it is computed again at another scale. "
            f"pretrained_window_sizes={plain} keeps the trained scale, as the published models do"
        )


def tell_scale_assumed(found: Mapping[str, np.ndarray], model) -> None:
    """Warns where nothing tells the scale of a file's continuous bias,
    and that of the model's own windows is taken.

    Args:
        found: The file's arrays, in any layout.
        model: The Swin that they go into, for which nobody gave `pretrained_window_sizes`.
    """
    if model.continuous_bias and infer.trained_scales(found) is None:
        own = tuple(map(simplest, buffers.coordinate_windows(model)))
        warn(
            "it is unknown by which windows the coordinates of the continuous "
            f"position bias were scaled in training; the model's own, {own}, are "
            "assumed: give pretrained_window_sizes where the weights were fine-tuned "
            "at another window than pretrained"
        )


def load_pretrained(
    source, model, resize: str | None = None, class_map=None, key: str | None = None
) -> dict:
    """Fits weights of any window, image size and head into a Swin for supervised fine-tuning.

    Args:
        source: A file of `pretrained.files.read`, a folder of a hub, or {'params': ...} of another
            Swin or of a SimMIM, and 'config', the flat config of its run, if there is one.
        model: The `models.swin.Swin` to fill.
        resize: The method that resizes position tables of another window or image size, see
            `remap`.
        class_map: Path of map22kto1k.txt, used where a head of 21,841 classes becomes one of 1,000;
            None derives it from an installed timm.
        key: The weights to take from a file that holds several, see `pretrained.files.read`.

    Returns:
        {'params': nested dict of float32 numpy arrays}.

    Raises:
        UserError: An unreadable file; missing, unexpected and mis-shaped keys, all listed; no map,
            and no choice of resizing, where one is needed.
    """
    found = read(source, key)
    needs_map = model.num_classes == 1000 and layouts.num_classes(found) == 21841
    rows = imagenet22k.find_map(class_map) if needs_map else None
    return fit(found, source, model, resize, rows)


def load_simmim(source, model, resize: str | None = None, key: str | None = None) -> dict:
    """Fits the encoder of a pretrained SimMIM into a Swin that keeps the random start of its head.

    Args:
        source: A file of `pretrained.files.read`, or {'params':
            ...} of a SimMIM or of another Swin.
        model: The `models.swin.Swin` to fill.
        resize: The same as in `remap`; the official code does 'geometric'.
        key: The weights to take from a file that holds several, see `pretrained.files.read`.

    Returns:
        {'params': nested dict of float32 numpy arrays} without a head, for
        `InitFrom(backbone=True)`.

    Raises:
        UserError: As `load_pretrained`.
    """
    return fit(read(source, key), source, model.clone(num_classes=0), resize, None)


def read(source, key: str | None) -> dict[str, np.ndarray]:
    """The state dict of a file, or of variables; of a SimMIM's variables the encoder's."""
    if isinstance(source, Mapping):
        params = source["params"]
        return swin.to_state_dict({"params": params.get("encoder", params)})
    return beside.read(beside.locate(source), key)


def fit(found: Mapping, source, model, resize: str | None, rows=None) -> dict:
    """`load_pretrained` of arrays that `read` has given; `rows` are those of `remap`."""
    try:
        made_for = fields_of(source, found)
        if not model.pretrained_window_sizes:
            trained = infer.trained_scales(found)
            if made_for is not None:
                trained = None
                if made_for.continuous_bias:
                    trained = tuple(buffers.coordinate_windows(made_for))
            elif not isinstance(source, Mapping):
                tell_scale_assumed(found, model)
            tell_scales(trained, model)
        return swin.from_official(remap(found, model, resize, rows, made_for), model)
    except UserError as error:
        if isinstance(source, Mapping):
            raise
        raise error.about(source) from error


def fields_of(source, found: Mapping) -> SimpleNamespace | None:
    """The fields of the Swin that weights are of, as far as a run's config, or one beside
    a file, tells them.

    Args:
        source: The same as in `load_pretrained`.
        found: Arrays of the file.

    Raises:
        UserError: A field of a config beside a file that cannot be obeyed.
    """
    if isinstance(source, Mapping):
        return fields_of_run(source)
    return fields_beside(found, beside.config_beside(beside.locate(source)))


def fields_beside(found: Mapping, beside_it: beside.Config | None) -> SimpleNamespace | None:
    """The fields of the Swin in a file, as far as its arrays and a config beside
    it tell them together.
    """
    told = config.arguments_of(beside_it, found)
    if not {"window_size", "image_size"} <= told.keys():
        return None
    return SimpleNamespace(
        **infer.infer(found, told["window_size"], told["image_size"]) | told | {"merge_size": 2}
    )


def fields_of_run(source) -> SimpleNamespace | None:
    """The fields of the Swin, or of a SimMIM's encoder, whose variables a run's are;
    None for a file, and for a run of another model, even one that is made around a Swin.

    Args:
        source: The same as in `load_pretrained`.
    """
    run = source.get("config") if isinstance(source, Mapping) else None
    if not run:
        return None
    inside = "task.model.encoder." if "task.model.encoder.window_size" in run else "task.model."
    fields = {
        key.removeprefix(inside): value for key, value in run.items() if key.startswith(inside)
    }
    # Makers of other models set merge_size themselves, so that it is no argument of theirs.
    is_swin = {"window_size", "merge_size"} <= fields.keys()
    return SimpleNamespace(**fields) if is_swin else None


def pretrained(resize: str | None = None, class_map: str | None = None) -> Callable:
    """`load_pretrained` as a function of (source, model), for an experiment file."""
    return functools.partial(load_pretrained, resize=resize, class_map=class_map)


def simmim_pretrained(resize: str | None = "geometric") -> Callable:
    """`load_simmim` as a function of (source, model), for an experiment file;
    `InitFrom` needs `backbone=True`.
    """
    return functools.partial(load_simmim, resize=resize)
