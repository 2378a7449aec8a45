"""Edits by global directions in S: one step for all pictures,
found from two texts without any training.

    generator = swin_jax.load(weights="ffhq.pkl")
    clip = swin_jax.load("ViT-B/32", weights="official")
    directions = global_directions.open_directions(generator, clip, "statistics")
    edited = directions.edit(ws, [Wish("a smiling face", "a face", alpha=3.0)])

Patashnik et al., arXiv 2103.17249, section 6. Reference: orpatashnik/StyleCLIP, global_torch/. The
folder of statistics holds the released fs3.npy and S_mean_std, or is computed where there is none.
"""

import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.core.ranges import FiniteFloat, Fraction, PositiveFloat, PositiveInt, checked
from swin_jax.core.sizes import per_axis
from swin_jax.data.image_text.tokenizer import tokenize
from swin_jax.evals.features import Tokenize
from swin_jax.evals.prompts.templates import IMAGENET_79, IMAGENET_80, fill
from swin_jax.inference import similarity
from swin_jax.inference.editing import relevance, statistics
from swin_jax.inference.editing.edits import NO_CHANNEL, Axis, Chosen, Edited
from swin_jax.inference.editing.relevance import Models
from swin_jax.models.styleclip.directions import (
    Direction,
    NoChannel,
    choose_beta,
    make_direction,
    text_direction,
)
from swin_jax.models.styleclip.relevance import Survey
from swin_jax.models.styleclip.statistics import Statistics
from swin_jax.pretrained.preparation import carried

log = logging.getLogger(__name__)

FOLDER = "statistics"  # of a workdir
TEMPLATES = {"79": IMAGENET_79, "80": IMAGENET_80}
SEPARATOR = "|"


@checked
@dataclasses.dataclass(frozen=True)
class Wish:
    """A text that pictures are edited to.

    Attributes:
        text: Description of what the pictures should show.
        neutral: Description of what they show now.
        alpha: Strength, in deviations of the channel that moves most;
            negative for the opposite edit.
        beta: Least relevance of the channels that move;
            None takes the largest that moves more than `channels`.
        channels: Number of channels that is exceeded where `beta` is None: the released code has 20
            for faces, 100 for other pictures.
    """

    text: str
    neutral: str = "a face"
    alpha: FiniteFloat = 4.0
    beta: Fraction | None = None
    channels: PositiveInt = 20


@dataclasses.dataclass(frozen=True, eq=False)
class GlobalDirections:
    """A generator and a CLIP, and what each channel of S does to CLIP's features.

    Attributes:
        models: Generator and CLIP with their variables.
        statistics: Mean and deviation of each channel.
        relevance: (channels, E) float32, see `models.styleclip.directions.image_directions`.
        templates: Prompts that texts are filled into, each with one {}.
        tokenize: Function of texts that gives tokens (n, L) int32; None for what the CLIP carries.
    """

    models: Models
    statistics: Statistics
    relevance: np.ndarray
    templates: tuple[str, ...] = IMAGENET_79
    tokenize: Tokenize | None = None

    @functools.cached_property
    def _found(self) -> dict[tuple, Any]:
        """Features of texts and directions of wishes that were asked for before."""
        return {}

    def features(self, text: str) -> np.ndarray:
        """CLIP's features of a text: the mean over all templates, (E,) float32 of length 1."""
        if ("features", text) not in self._found:
            prompts = (
                [fill(template, text) for template in self.templates] if text.strip() else [text]
            )
            models = self.models
            rows = similarity.encode_texts(
                models.clip, models.clip_variables, prompts, self.tokenize
            )
            mean = rows.mean(axis=0)
            self._found["features", text] = mean / np.linalg.norm(mean)
        return self._found["features", text]

    def relevances(self, wish: Wish) -> np.ndarray:
        """The effect of each channel in the direction of a text: (channels,), cosines."""
        return self.relevance @ text_direction(
            self.features(wish.text), self.features(wish.neutral)
        )

    def distance(self, wish: Wish) -> float:
        """The distance of the two texts in CLIP's space,
        the length that their direction is divided by.
        """
        return float(np.linalg.norm(self.features(wish.text) - self.features(wish.neutral)))

    def beta(self, wish: Wish) -> float:
        """The threshold of a wish, given or chosen."""
        return choose_beta(self.relevances(wish), wish.channels) if wish.beta is None else wish.beta

    def direction(self, wish: Wish) -> Direction:
        """The step in S of a wish at strength 1.

        Raises:
            NoChannel: Its beta selects none; the error names the largest that does,
                and the channel.
            UserError: An empty text, or two that are the same to CLIP.
        """
        key = wish.text, wish.neutral, wish.beta, wish.channels
        if key not in self._found:
            beta, layers = self.beta(wish), self.models.generator.style_layers()
            made = make_direction(self.relevances(wish), self.statistics.deviations, layers, beta)
            log.info(
                "'%s' from '%s': %d channels by beta %.3g; the texts are %.4f apart",
                *(wish.text, wish.neutral, len(made.chosen), beta, self.distance(wish)),
            )
            self._found[key] = made
        return self._found[key]

    def edit(self, ws: np.ndarray, wishes: Sequence[Wish]) -> Edited:
        """Edits latents by all wishes at once: their steps add up.

        Args:
            ws: W+ (B, num_ws, w_dim).
            wishes: The edits to make, at least one.

        Raises:
            NoChannel: A beta that selects none.
            UserError: No wishes, latents of another shape, what `direction` raises.
        """
        if not wishes:
            raise UserError("there is no text to edit to")
        return self._move(
            ws, [self.direction(wish) for wish in wishes], [wish.alpha for wish in wishes]
        )

    def edit_each(self, ws: np.ndarray, wishes: Sequence[Wish]) -> Edited:
        """Edits latent i by wish i; arguments and errors as in `edit`."""
        if len(wishes) != len(ws):
            raise UserError(f"{len(ws)} latents have as many texts, not {len(wishes)}")
        rows = [self.edit(ws[i : i + 1], [wish]) for i, wish in enumerate(wishes)]
        styles = tuple(np.concatenate(parts) for parts in zip(*(row.styles for row in rows)))
        return Edited(styles, None, tuple(row.chosen[0] for row in rows))

    def unedited(self, ws: np.ndarray, note: str) -> Edited:
        """The latents as they are, in S."""
        ws, generator = np.asarray(ws, np.float32), self.models.generator
        if ws.shape == (generator.num_ws, generator.w_dim):
            log.info("(%d, %d) is read as one latent, not as %d", *ws.shape, len(ws))
            ws = ws[None]
        styles = jax.device_get(self._styles(self.models.variables, ws))
        return Edited(styles, None, ((),) * len(ws), note)

    def _move(
        self, ws: np.ndarray, directions: Sequence[Direction], alphas: Sequence[float]
    ) -> Edited:
        edited = self.unedited(ws, "")
        styles, weights = edited.styles, {}
        for direction, alpha in zip(directions, alphas):
            styles = direction.edit(styles, np.float32(alpha))
            for layer, channel, coefficient in direction.chosen:
                weights[layer, channel] = weights.get((layer, channel), 0.0) + alpha * coefficient
        moved = sorted(
            ((*key, weight) for key, weight in weights.items() if weight),
            key=lambda row: -abs(row[2]),
        )
        chosen: Chosen = tuple(moved)
        return dataclasses.replace(edited, styles=styles, chosen=(chosen,) * len(styles[0]))

    @functools.cached_property
    def _styles(self) -> Callable:
        generator = self.models.generator
        return jax.jit(lambda variables, ws: generator.apply(variables, ws, method="styles"))


def open_directions(
    generator: tuple[Any, dict],
    clip: tuple[Any, dict],
    folder: str | os.PathLike,
    survey: Survey | None = None,
    templates: Sequence[str] = IMAGENET_79,
    tokenize: Tokenize | None = None,
    show: bool = True,
) -> GlobalDirections:
    """Opens global directions of a generator and a CLIP; the module's docstring has an example.

    Args:
        generator, clip: Model and variables, as `swin_jax.load` gives them.
        folder: Folder of statistics, released ones or computed here; where it has none they are
            computed into it, which takes hours for 1024 pixels, shows progress, and resumes where
            it was killed.
        survey: Settings of the computation; None for the released code's settings and pixels as the
            CLIP takes them.
        templates, tokenize: The same as in `GlobalDirections`.
        show: Show progress.

    Raises:
        UserError: Statistics of other weights or shapes.
    """
    models, path = Models(*generator, *clip), storage.path(folder)
    given = any((path / name).exists() for name in (statistics.DIRECTIONS, statistics.ORIGIN))
    if given and (survey is None or not statistics.is_complete(path)):
        arguments = models.generator, models.variables, models.clip_variables, _width(models)
        found, rows = statistics.read_folder(folder, *arguments, clip=models.clip)
    else:
        found, rows = relevance.compute(
            models, os.fspath(folder), survey or _survey(models.clip), show
        )
    return GlobalDirections(models, found, rows, tuple(templates), tokenize)


def _survey(clip: Any) -> Survey:
    """The settings of the released code, with pixels as the CLIP's preparation has them,
    if it carries one.
    """
    prepared = carried(clip)
    if prepared is None or not prepared.mean:
        return Survey()
    return Survey(mean=tuple(prepared.mean), std=tuple(prepared.std))


def _width(models: Models) -> int:
    """Width of CLIP's features."""
    size = (1, *per_axis(models.clip.visual.image_size, 2), 3)
    image = jax.ShapeDtypeStruct(size, np.float32)
    encode = functools.partial(models.clip.apply, method="encode_image")
    return jax.eval_shape(encode, models.clip_variables, image).shape[-1]


@checked
@dataclasses.dataclass(frozen=True)
class GlobalEditor:
    """The editor of an experiment.

    Attributes:
        task: A `tasks.style_relevance.StyleRelevance`:
            the networks, and how statistics are computed.
        text: Description of what pictures should show; several texts, each with its step, are
            separated by |.
        neutral: Description of what they show now, one for all texts or as many.
        alpha, beta, channels: Fields of `Wish`; one value for all texts, or as many.
        statistics: A folder with fs3.npy and S_mean_std; '' takes those of the run in the workdir,
            or computes them there from the changed layer on.
        templates: '79', as the released code has, or '80', as the paper says.
        alphas, betas: Values along the axes of sheets and videos.
    """

    task: Any
    text: str
    neutral: str = "a face"
    alpha: tuple[FiniteFloat, ...] = (4.0,)
    beta: tuple[Fraction, ...] = ()
    channels: PositiveInt = 20
    statistics: str = ""
    templates: str = "79"
    alphas: tuple[FiniteFloat, ...] = (-4.0, -2.0, 0.0, 2.0, 4.0, 6.0)
    betas: tuple[PositiveFloat, ...] = (0.08, 0.12, 0.16, 0.2, 0.24)

    def __post_init__(self):
        if self.templates not in TEMPLATES:
            raise UserError(
                f"templates={self.templates!r} must be '79' (the released code) or '80' (the paper)"
            )
        self.wishes()

    def wishes(self) -> list[Wish]:
        """One for each text.

        Raises:
            UserError: An empty text; numbers or neutral texts that are neither one nor as
                many as the texts.
        """
        texts = [text.strip() for text in self.text.split(SEPARATOR)]
        if not all(texts):
            raise UserError(
                f"text={self.text!r} is empty; give --config.text='a face "
                "with glasses', for example"
            )
        neutral = [text.strip() for text in self.neutral.split(SEPARATOR)]
        found = []
        for name, values in (
            ("neutral", neutral),
            ("alpha", self.alpha),
            ("beta", self.beta or (None,)),
        ):
            if len(values) not in (1, len(texts)):
                raise UserError(
                    f"{name}={values} has {len(values)} entries, {len(texts)} texts: "
                    "give one or as many"
                )
            found.append(list(values) * (len(texts) if len(values) == 1 else 1))
        return [Wish(text, *values, self.channels) for text, *values in zip(texts, *found)]

    def check(self) -> None:
        """Raises UserError for a file that is missing, naming its flag, or texts that are too long;
        reads CLIP's vocabulary alone.
        """
        self.task.check_frozen()
        if self.statistics:
            statistics.check_folder(self.statistics)
        for text in {text for wish in self.wishes() for text in (wish.text, wish.neutral)}:
            self._tokens([fill(template, text) for template in TEMPLATES[self.templates]])

    def load(self, workdir: str) -> "LoadedGlobalEditor":
        """Reads weights and statistics, or computes the latter into the workdir."""
        generator, clip = self.task.generator.model, self.task.clip.model
        variables = jax.device_put(self.task.load_networks())
        networks = (generator, variables["generator"]), (clip, variables["clip"])
        folder, survey = self.statistics, None
        if not folder:
            folder, survey = os.fspath(storage.path(workdir) / FOLDER), self.task.survey
            relevance.take_run(self.task, Models(*networks[0], *networks[1]), workdir, folder)
        templates = TEMPLATES[self.templates]
        found = open_directions(*networks, folder, survey, templates, self._tokens)
        axes = Axis("alpha", self.alphas), Axis("beta", self.betas)
        return LoadedGlobalEditor(found, tuple(self.wishes()), axes)

    def _tokens(self, texts: Sequence[str]) -> np.ndarray:
        return tokenize(texts, self.task.clip.model.text.context_length)


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedGlobalEditor:
    """The editor with its weights, a `LoadedEditor`.

    Attributes:
        directions: Directions of generator and CLIP.
        wishes: The edits to make.
        axes: Axes of sheets: alpha and beta.
    """

    directions: GlobalDirections
    wishes: tuple[Wish, ...]
    axes: tuple[Axis, ...]
    method: str = "global directions"

    @property
    def generator(self) -> Any:
        """The `models.stylegan2.Generator`."""
        return self.directions.models.generator

    @property
    def variables(self) -> dict:
        """The generator's variables."""
        return self.directions.models.variables

    @property
    def text(self) -> str:
        """All texts in one."""
        return ", ".join(wish.text for wish in self.wishes)

    def edit(self, ws: np.ndarray, alpha: float | None = None, beta: float | None = None) -> Edited:
        """Edits W+ (B, num_ws, w_dim).

        Args:
            ws: The latents.
            alpha: A step in place of every wish's own.
            beta: The same. With one that selects no channel the latents are as they were, and
                `note` says so, as in the cell of a sheet.

        Raises:
            NoChannel: A wish's own beta selects no channel.
        """
        changes = {
            name: value for name, value in (("alpha", alpha), ("beta", beta)) if value is not None
        }
        wishes = [dataclasses.replace(wish, **changes) for wish in self.wishes]
        try:
            return self.directions.edit(ws, wishes)
        except NoChannel:
            if beta is None:
                raise
            return self.directions.unedited(ws, NO_CHANNEL)
