"""Emoji as image-text pairs: who is held out, what the captions say, which drawings a source has."""

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.data.emoji import images as emoji
from swin_jax.data.emoji.style import style_train_transform
from swin_jax.data.image_text.tokenizer import END, tokenize
from swin_jax.evals.prompts.emoji import zero_shot


def test_a_tenth_of_the_concepts_is_held_out_by_their_code():
    codes = [f"{number:04x}" for number in range(0x1F300, 0x1F700)]
    share = np.mean([emoji.is_unseen(code) for code in codes])
    assert 0.05 < share < 0.15
    assert [code for code in codes if emoji.is_unseen(code)][:3] == ["1f30c", "1f31f", "1f32b"]


def test_captions_hold_the_name_and_sometimes_keywords():
    source, rng = emoji.fake_emoji(), np.random.default_rng(0)
    captions = [emoji.caption(source[2], rng) for _ in range(200)]
    assert all("cat" in text for text in captions)
    assert 60 < sum("," in text for text in captions) < 140
    assert {text for text in captions if "," not in text} == {t.format("cat") for t in emoji.TEMPLATES}
    assert any("small drawing" in text for text in captions) and not any("_" in text for text in captions)
    assert all("," not in emoji.caption(source[2], rng, with_keywords=0) for _ in range(50))


def test_pairs_are_what_the_task_takes():
    transform = emoji.pair_train_transform(style_train_transform(16), context_length=6)
    pair = transform(emoji.fake_emoji()[0], np.random.default_rng(0))
    assert pair["image"].shape == (16, 16, 3) and pair["text"].shape == (6,) and pair["label"] == 0
    assert END in pair["text"]  # cut captions end as well
    plain = emoji.pair_train_transform(style_train_transform(16), context_length=9, with_keywords=0)
    texts = {tuple(plain(emoji.fake_emoji()[0], np.random.default_rng(seed))["text"]) for seed in range(30)}
    assert texts == {tuple(tokenize(t.format("red square"), 9)[0]) for t in emoji.TEMPLATES}


def test_sources_are_chosen_by_vendor_and_concept():
    both = emoji.fake_emoji(24)
    for concepts, expected in (("seen", set(range(7))), ("unseen", {7}), ("all", set(range(8)))):
        chosen = emoji._select(both, ("noto",), concepts, common=False)
        assert set(chosen.labels) == expected and len(chosen.vendors) == len(chosen)
        assert chosen.class_names == both.class_names
    with pytest.raises(UserError, match="no vendor 'apple'; they have noto"):
        emoji._select(both, ("apple",), "all", False)
    with pytest.raises(UserError, match="concepts='new' is not one of"):
        emoji.emoji(None, concepts="new")


def test_the_evaluation_names_seen_and_unseen_concepts_apart():
    class Data:
        source = emoji.fake_emoji()

    found = zero_shot(Data())
    assert set(found.subsets) == {"seen", "unseen", "unseen_only"}
    assert found.subsets["unseen"].classes == ["star"] == list(found.subsets["unseen_only"].candidates)
    assert len(found.subsets["seen"].classes) == 7 and len(found.subsets["seen"].candidates) == 8
    assert found.groups["star"] == "Shapes"
    assert found.tokenize(["a " * 50]).shape == (1, 20)
