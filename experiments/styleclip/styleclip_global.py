"""StyleCLIP's global directions: one step in style space for all pictures, found from two texts.

    python -m swin_jax.launch --config=experiments/styleclip/styleclip_global.py \
        --workdir=runs/global \
        --config.generator=stylegan2-ffhq-config-f.pt --config.clip=ViT-B-32.pt \
        --config.statistics=FOLDER --config.text="a smiling face" --edit=seeds:0-9

`FOLDER` holds the released `fs3.npy` and `S_mean_std`. Without `statistics` they are computed into
the workdir before the first edit, from the changed layer on, and a command that was killed resumes
where it was. The same command without `--edit` computes them by the training loop, by whole runs
spread over all devices.

The settings are those of the released code (arXiv 2103.17249, section 6): means and deviations of
100,000 latents, every channel moved by 5 deviations either way in 100 pictures, texts in 79
prompts. `alpha` is the strength in deviations, `beta` the least relevance of a channel that moves;
left out, it is chosen so that more than 20 do. Several texts, whose steps add up, are separated by
|; they share `neutral`, `alpha` and `beta`, or have one each, such as
`--config.alpha="(3.0, -2.0)"`. Further keys: `task.survey.change.form=paper`,
`task.survey.change.cumulative=True`, the bug of the released script,
`task.survey.draws.truncation_cutoff=8`, that of its port, and `edit.templates=80`.

With `:avatars` the networks are those of stylegan2_avatars.py and clip_avatars.py, given by their
workdirs.

A folder of photographs is inverted by e4e, `--config.e4e=e4e_ffhq_encode.pt`, or with `:projector`
by StyleGAN2's projector and LPIPS, `--config.vgg16=vgg16-397923af.pth --config.lpips=vgg.pth`; of
avatars by the projector and the run of avatars_attributes.py,
`--config.classifier=runs/attributes`.
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import edits, inversion, run
from swin_jax.data.row_numbers import RowNumbers
from swin_jax.inference.editing.global_directions import GlobalEditor
from swin_jax.models.styleclip import rules
from swin_jax.models.styleclip.relevance import Change, Survey
from swin_jax.models.styleclip.statistics import Draws
from swin_jax.tasks.style_relevance import StyleRelevance


def get_config(arg=None):
    arg = parse_arg(arg, avatars=False, projector=False, fake=False)

    # Sizes
    # Of channels, each of which makes two pictures: at 1024 pixels 7.2 GiB for 4 channels.
    batch_size = 32 if arg.avatars else 4
    c = edits.sizes(arg.avatars, batch_size=batch_size, images=100, samples=100_000, truncation=0.7)
    c.channels = 448 if arg.avatars else 6048  # that are in no ToRGB
    ref = c.get_oneway_ref
    c.total_steps = ref("images") * ((ref("channels") + ref("batch_size") - 1) // ref("batch_size"))
    c.update(text="a face with glasses" if arg.avatars else "a smiling face", neutral="a face")
    c.update(alpha=(4.0,), beta=(), statistics="")

    # Model
    frozen = edits.networks(c, arg.avatars)
    del frozen["arcface"], c["arcface"]

    # Optimizer: none, as sums are all that changes

    # Task
    draws = spec(Draws, samples=ref("samples"))
    measured = dict(images=ref("images"), batch_size=2 * ref("batch_size"))
    survey = spec(Survey, draws=draws, change=spec(Change), **measured)
    if arg.avatars:
        survey.update(mean=(0.5,) * 3, std=(0.5,) * 3)
    c.task = spec(StyleRelevance, **frozen, survey=survey, batch_size=ref("batch_size"))

    # Data
    c.data = spec(RowNumbers, batch_size=ref("batch_size"))

    # Evals
    c.evals = {}
    c.edit = spec(
        GlobalEditor, task=None, **run.refs(c, "text", "neutral", "alpha", "beta", "statistics")
    )
    c.edit.task = c.task
    c.invert = inversion.inversion(c, arg.avatars, arg.projector)

    # Run
    c.init_from = run.init_from()
    run.set_up(c, rules.PARTITION, every=500)
    return use_fakes(c) if arg.fake else c


def use_fakes(c):
    """No files and no time: tiny networks with random weights."""
    c.update(batch_size=8, images=1, samples=40, channels=24, beta=(0.05,))
    edits.use_fakes(c, c.task)
    inversion.use_fakes(c.invert)
    return c
