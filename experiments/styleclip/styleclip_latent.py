"""StyleCLIP's latent optimization: each latent moves until CLIP sees the text in its picture.

    python -m swin_jax.launch --config=experiments/styleclip/styleclip_latent.py \
        --workdir=runs/purple_hair \
        --config.generator=stylegan2-ffhq-config-f.pt --config.clip=ViT-B-32.pt \
        --config.text="a person with purple hair"

The settings are those of the released code (arXiv 2103.17249, section 4): 300 steps at a rate of
0.1 with ramps at both ends, the sum of squares of the step times 0.008, CLIP shown pictures without
its own normalization. `--config.latents=w_plus.npy` starts from latents of a file, as many as
`batch_size`, else they are drawn from the seed and truncated by 0.7. Several texts, one for each
latent, are separated by |. Further keys: `task.id_lambda=0.005` with `arcface=model_ir_se50.pth`
keeps the person, `task.space=s` optimizes styles, `task.mode=free` starts from the mean latent and
keeps nothing, `task.penalty=norm` and `task.preprocess=clip` are the paper's distance and CLIP's
own colors. `--edit=seeds:0-9`, or a folder, edits one after the other in the same way.

With `:avatars` the networks are those of stylegan2_avatars.py, clip_avatars.py and
avatars_identity.py, given by their workdirs.

A folder of photographs is inverted by e4e, `--config.e4e=e4e_ffhq_encode.pt`, or with `:projector`
by StyleGAN2's projector and LPIPS, `--config.vgg16=vgg16-397923af.pth --config.lpips=vgg.pth`; of
avatars by the projector and the run of avatars_attributes.py,
`--config.classifier=runs/attributes`.
"""

from swin_jax.core.config import parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import edits, inversion, run
from swin_jax.data.image_text.tokenizer import tokenize_split
from swin_jax.data.row_numbers import RowNumbers
from swin_jax.evals.edits import Edits
from swin_jax.inference.editing.latent_optimization import LatentOptimizationEditor
from swin_jax.models.styleclip import rules
from swin_jax.optim import adamw
from swin_jax.optim.schedules import ramps
from swin_jax.pretrained.styleclip.latents import latents
from swin_jax.tasks.latent_optimization import LatentOptimization


def get_config(arg=None):
    arg = parse_arg(arg, avatars=False, projector=False, fake=False)

    # Sizes
    c = edits.sizes(arg.avatars, total_steps=300, batch_size=1, latents="", truncation=0.7)
    c.text = "a face with glasses" if arg.avatars else "a person with purple hair"
    ref = c.get_oneway_ref

    # Model
    frozen = edits.networks(c, arg.avatars)
    frozen["generator"]["model"]["remat"] = "none" if arg.avatars else "full"

    # Optimizer
    schedule = spec(ramps, base_lr=0.1, total_steps=ref("total_steps"))
    tx = spec(adamw, schedule=schedule, no_decay=(), weight_decay=0.0, clip_norm=0.0)

    # Task
    text_ids = spec(tokenize_split, text=ref("text"), context_length=ref("context_length"))
    latent = run.refs(c, "z_dim", "w_dim", "seed")
    latent |= dict(resolution=ref("image_size"), count=ref("batch_size"))
    start = spec(latents, path=ref("latents"), **latent)
    same = run.refs(c, "batch_size", "truncation")
    c.task = spec(LatentOptimization, **frozen, tx=tx, text_ids=text_ids, latents=start, **same)
    c.task.crop_face = not arg.avatars

    # Data
    c.data = spec(RowNumbers, batch_size=ref("batch_size"))

    # Evals
    c.evals = dict(edits=dict(every=100, run=spec(Edits)))
    c.edit = spec(LatentOptimizationEditor, task=None, text=ref("text"))
    c.edit.update(steps=ref("total_steps"), progress=True)
    c.edit.task = c.task
    c.invert = inversion.inversion(c, arg.avatars, arg.projector)

    # Run
    c.init_from = run.init_from()
    run.set_up(c, rules.PARTITION, every=100, logs=20)
    return use_fakes(c) if arg.fake else c


def use_fakes(c):
    """No files and no time: tiny networks with random weights."""
    c.update(total_steps=3, batch_size=8)
    edits.use_fakes(c, c.task)
    inversion.use_fakes(c.invert)
    return c
