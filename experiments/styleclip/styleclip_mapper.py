"""StyleCLIP's latent mapper: a network learns the step that takes any latent to a text.

    python -m swin_jax.launch --config=experiments/styleclip/styleclip_mapper.py \
        --workdir=runs/mohawk \
        --config.generator=stylegan2-ffhq-config-f.pt --config.clip=ViT-B-32.pt \
        --config.arcface=model_ir_se50.pth \
        --config.text="mohawk hairstyle" --config.task.model.fine=False

The settings are those of the released code (arXiv 2103.17249, section 5): batches of 2, Ranger at a
rate of 0.5, 50,000 steps, weights 1, 0.8 and 0.1 of the losses. `--config.latents=train_faces.pt`
and `--config.test_latents=test_faces.pt` are the published latents of 24,176 and 2,824 faces;
without them 5,000 and 1,000 are drawn and truncated by 0.7. The published mappers of afro, angry,
bobcut, bowlcut, curly_hair, mohawk and surprised have no fine level; a text that makes somebody
else of a person has `task.l2_lambda=2` and `task.id_lambda=0`, which needs no `arcface`. The
published code chooses the best step by its test loss; here the last one is reported.

    python -m swin_jax.launch --config=experiments/styleclip/styleclip_mapper.py \
        --workdir=runs/released \
        --config.generator=purple_hair.pt --config.mapper=purple_hair.pt --edit=seeds:0-9

`--edit` applies the mapper of the workdir, or the released file `mapper`, which holds its
generator. With `:avatars` the networks are those of stylegan2_avatars.py, clip_avatars.py and
avatars_identity.py, given by their workdirs.

A folder of photographs is inverted by e4e, `--config.e4e=e4e_ffhq_encode.pt`, or with `:projector`
by StyleGAN2's projector and LPIPS, `--config.vgg16=vgg16-397923af.pth --config.lpips=vgg.pth`; of
avatars by the projector and the run of avatars_attributes.py,
`--config.classifier=runs/attributes`.
"""

from swin_jax.core.config import derived, parse_arg, refuse_as_script, spec

if __name__ == "__main__":
    refuse_as_script()

from experiments.common import edits, inversion, run
from swin_jax.data import pipeline
from swin_jax.data.image_text.tokenizer import tokenize_split
from swin_jax.evals.edits import Edits
from swin_jax.inference.editing.latent_mapper import LatentMapperEditor
from swin_jax.models.styleclip import LevelsMapper, rules
from swin_jax.optim import ranger
from swin_jax.pretrained.styleclip import mappers
from swin_jax.pretrained.styleclip.latents import latents, unchanged
from swin_jax.tasks.latent_mapper import LatentMapper


def get_config(arg=None):
    arg = parse_arg(arg, avatars=False, projector=False, fake=False)

    # Sizes
    files = dict(mapper="", latents="", test_latents="")
    c = edits.sizes(arg.avatars, total_steps=50_000, batch_size=2, truncation=0.7, **files)
    c.text = "a face with glasses" if arg.avatars else "purple hair"
    if arg.avatars:
        c.update(total_steps=1000, batch_size=8)
    ref = c.get_oneway_ref

    # Model
    frozen = edits.networks(c, arg.avatars)
    frozen["generator"]["model"]["remat"] = "none" if arg.avatars else "full"
    model = spec(LevelsMapper)

    # Optimizer
    tx = spec(ranger, learning_rate=0.5)

    # Task
    text_ids = spec(tokenize_split, text=ref("text"), context_length=ref("context_length"))
    given = dict(
        given=derived(lambda path: "w+" if path else "z", ref("latents")),
        **run.refs(c, "truncation"),
    )
    c.task = spec(LatentMapper, model=model, **frozen, tx=tx, text_ids=text_ids, **given)
    c.task.crop_face = not arg.avatars

    # Data
    size = dict(resolution=ref("image_size"), **run.refs(c, "z_dim", "w_dim"))
    train = spec(latents, path=ref("latents"), **size, count=5000, seed=0)
    loader = run.refs(c, "batch_size", "seed")
    c.data = spec(pipeline.TrainData, source=train, transform=spec(unchanged), **loader)

    # Evals
    test = spec(latents, path=ref("test_latents"), **size, count=1000, seed=1)
    test = spec(pipeline.EvalData, source=test, transform=spec(unchanged), batch_size=8)
    shown = {} if arg.avatars else dict(pictures=6, columns=2)
    c.evals = dict(test=dict(every=2000, run=spec(Edits, data=test, **shown)))
    c.edit = spec(LatentMapperEditor, generator=None, **run.refs(c, "text", "mapper"))
    c.edit.generator, c.edit.model = c.task.generator, c.task.model
    c.invert = inversion.inversion(c, arg.avatars, arg.projector)

    # Run
    c.init_from = run.init_from(convert=spec(mappers.pretrained))
    run.set_up(c, rules.PARTITION, every=2000)
    return use_fakes(c) if arg.fake else c


def use_fakes(c):
    """No files and no time: tiny networks with random weights."""
    c.update(total_steps=3, batch_size=8)
    edits.use_fakes(c, c.task)
    inversion.use_fakes(c.invert)
    c.task.id_lambda = 0.0
    c.data.source.count, c.evals.test.run.data.source.count = 24, 12
    return c
