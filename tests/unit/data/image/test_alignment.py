"""Alignment of faces: against pictures that the published code made, turned faces, and landmarks that are none."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.data.image.alignment import align, face_quad, face_transform, read_landmarks

GOLDEN = pathlib.Path(__file__).resolve().parents[3] / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)
with np.load(GOLDEN / "alignment" / "alignment.npz") as stored:
    RECORDED = dict(stored)

# Eyes, nose and corners of the mouth of a face one wide, around its eyes' height.
FACE = np.array([[-0.2, -0.1], [0.2, -0.1], [0.0, 0.05], [-0.15, 0.2], [0.15, 0.2]])


def turned(center, width, angle):
    """The points of a face that is turned by an angle, clockwise as it is seen."""
    cos, sin = np.cos(angle), np.sin(angle)
    return width * FACE @ np.array([[cos, sin], [-sin, cos]]) + center


@pytest.mark.parametrize("name", ["inside", "edge", "corner", "large", "whole"])
def test_a_face_is_aligned_as_the_published_code_does(name):
    height, width, size, transform_size = map(int, RECORDED[f"{name}.settings"])
    image = golden.picture(name, height, width, 3)
    found = np.asarray(align(image, RECORDED[f"{name}.landmarks"], size, transform_size))
    # Versions of Pillow round otherwise.
    assert np.abs(found.astype(int) - RECORDED[f"{name}.aligned"]).max() <= 1


def test_of_68_points_the_means_of_the_eyes_and_the_corners_of_the_mouth_count():
    points = RECORDED["inside.landmarks"]
    five = [points[36:42].mean(axis=0), points[42:48].mean(axis=0), (0, 0), points[48], points[54]]
    np.testing.assert_allclose(face_quad(points), face_quad(five))


@pytest.mark.parametrize("angle", [0.0, 0.5, -1.3, 2.0, np.pi])
def test_the_square_stands_upright_around_a_turned_face(angle):
    quad = face_quad(turned((50, 40), 60, angle))
    cos, sin = np.cos(angle), np.sin(angle)
    back = (quad - (50, 40)) @ np.array([[cos, -sin], [sin, cos]])  # as the face stands
    (left, top), (low_left, bottom), (right, low_right), (upper_right, upper_top) = back
    np.testing.assert_allclose([low_left, low_right, upper_right, upper_top], [left, bottom, right, top], atol=1e-9)
    # Twice the distance of the eyes (0.4) is more than 1.8 times that of eyes and mouth (0.3).
    np.testing.assert_allclose([right - left, bottom - top], [2 * 2 * 0.4 * 60] * 2)
    np.testing.assert_allclose([(left + right) / 2, (top + bottom) / 2], [0, 60 * (-0.1 + 0.1 * 0.3)], atol=1e-9)


def test_an_aligned_face_is_cut_out_as_it_is():
    image = golden.picture("identity", 200, 220, 3)
    # Eyes 16 apart give a square of 64 around a center that lies 0.1 of the way from the eyes to the mouth.
    landmarks = np.array([[-8, -1.0], [8, -1], [0, 4], [-6, 9], [6, 9]]) + (100 + 31.5, 90 + 31.5)
    np.testing.assert_array_equal(align(image, landmarks, 64), image[90:154, 100:164])


def test_a_turned_photograph_gives_the_same_face():
    rows, columns = np.mgrid[:240, :240]
    smooth = np.stack([rows, columns, (rows + columns) // 2], axis=-1).astype(np.uint8)
    straight = turned((119.5, 110), 50, 0.0)
    about = np.array([[0, 1], [-1, 0]])  # a quarter turn, clockwise as it is seen
    round_ = (straight - 119.5) @ about + 119.5
    first = np.asarray(align(smooth, straight, 32)).astype(int)
    second = np.asarray(align(np.rot90(smooth, -1).copy(), round_, 32)).astype(int)
    assert np.abs(first - second).max() <= 1


def test_landmarks_are_read_beside_the_picture_or_found_by_a_function(tmp_path):
    image, points = golden.picture("files", 100, 120, 3), turned((60, 50), 60, 0.2)
    wanted = np.asarray(align(image, points, 16))
    Image.fromarray(image).save(tmp_path / "face.png")
    with pytest.raises(
        UserError, match=r"face.png needs landmarks to be aligned: 5 or 68 points \[x, y\] in .*face.json"
    ):
        align(tmp_path / "face.png", size=16)
    for content in (points.tolist(), {"landmarks": points.tolist()}):
        (tmp_path / "face.json").write_text(json.dumps(content))
        np.testing.assert_array_equal(align(tmp_path / "face.png", size=16), wanted)
        np.testing.assert_array_equal(align(image, tmp_path / "face.json", 16), wanted)
    np.testing.assert_array_equal(
        align(Image.fromarray(image), lambda pixels: points * (pixels == image).all(), 16), wanted
    )
    with pytest.raises(UserError, match="give the landmarks of this face"):
        align(image)


@pytest.mark.parametrize("text", ["{", "{}", '"x"', "[[1, 2]]", '{"landmarks": [[1, 2, 3]]}', "null", '[["a", "b"]]'])
def test_a_file_without_landmarks_is_named(text, tmp_path):
    (tmp_path / "face.json").write_text(text)
    with pytest.raises(UserError, match="face.json.*(cannot be read|5 or 68 points)"):
        read_landmarks(tmp_path / "face.json")


GOOD = turned((60, 50), 60, 0.0)


@pytest.mark.parametrize(
    "landmarks, message",
    [
        (GOOD[:4], r"of shape \(4, 2\): 5 or 68 points"),
        (GOOD.T, r"of shape \(2, 5\): 5 or 68 points"),
        (GOOD[:, :1], r"of shape \(5, 1\): 5 or 68 points"),
        ([1, [2, 3]], "landmarks are not numbers: 5 or 68 points"),
        (np.where(FACE == 0, np.nan, GOOD), "not finite"),
        (np.full((5, 2), 40.0), "are not those of a face"),
        (GOOD[[1, 0, 2, 4, 3]], "go from left to right"),
        (GOOD / 120, "landmarks are in pixels of the picture, not shares of it"),
        (GOOD + (500, 0), r"the face around \(560, 46\), 96 pixels wide, is not in this picture of 120 x 100"),
        (turned((60, 50), 900, 0.0), "pixels wide, is not in this picture"),
    ],
)
def test_landmarks_of_no_face_in_the_picture_are_refused(landmarks, message):
    with pytest.raises(UserError, match=message) as error:
        align(golden.picture("wrong", 100, 120, 3), landmarks, 16)
    assert "\n" not in str(error.value)


def test_a_cut_smaller_than_the_result_is_refused():
    with pytest.raises(UserError, match="transform_size=8 must be at least size=16"):
        align(golden.picture("wrong", 100, 120, 3), GOOD, 16, 8)


def test_an_aligned_face_is_resized_and_a_picture_that_is_not_square_is_none():
    image = golden.picture("square", 20, 20, 3)
    found = face_transform(10)({"image": image, "label": 1})
    wanted = Image.fromarray(image).resize((10, 10), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found["image"], wanted)
    assert found["label"] == 1
    with pytest.raises(UnreadableError, match="20 x 18 pixels are not an aligned face"):
        face_transform(10)({"image": image[:18], "label": 1})
