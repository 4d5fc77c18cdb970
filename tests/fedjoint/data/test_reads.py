"""What differs in what two backbones read is said, whatever shapes say."""

import pytest
import torch

from fedjoint.data.reads import Reads, check_same_inputs, reads_of_card, reads_of_example
from fedjoint.data.sources.npz import Npz
from fedjoint.errors import UserError
from fedjoint.model.inputs import Inputs, Words

IMAGE = Inputs(shape=(1, 8, 8), dtype="float32", pixels=True, name="image")
NUMBERS = Inputs(shape=(2,), dtype="float32", columns=["a", "b"])
IDS = Inputs(shape=(9,), dtype="int64", name="ids", pad=0)
TEXT = Inputs(shape=(5,), dtype="int64", words=Words(max_length=5, vocabulary=50))
MANY = [f"c{i}" for i in range(40)]


def reads(part, source=True, **more):
    return Reads(parts={"": part}, source=source, **more)


def changed(part, **more):
    return part, part.model_copy(update=more)


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        (changed(NUMBERS, columns=["b", "a"]), "the columns a, b, and given them as b, a here"),
        (changed(NUMBERS, columns=["a", "c"]), "the columns a, b, and given a, c here"),
        (changed(IMAGE, name="mask"), "'image', and given 'mask' here: set .*input = 'image'"),
        (changed(IMAGE, pixels=False), "pixels, and given numbers"),
        (changed(IMAGE, shape=(1, 4, 16)), "inputs of 1 x 8 x 8, and given 1 x 4 x 16"),
        (changed(IDS, pad=3), "ids padded by 0, and given such by 3"),
        (changed(IDS, dtype="float32"), "int64, and given float32"),
        (changed(TEXT, words=Words(max_length=5, vocabulary=60)), "50 ids of words, and given 60"),
        (changed(TEXT, words=None), "words of a text, and given no text"),
        (changed(TEXT, words=Words(max_length=5, vocabulary=50, tokenizer="t")), "the tokens of t"),
        (
            changed(NUMBERS, columns=MANY, shape=(40,)),
            r"the columns a, b, and given c0, c1, .*c11, \.\.\. here",
        ),
    ],
)
def test_a_difference_is_said_with_its_cure(pair, said):
    known, here = map(reads, pair)
    check_same_inputs(known, known, "it")
    with pytest.raises(UserError, match=f"it: trained on .*{said}"):
        check_same_inputs(known, here, "it")


def test_of_many_columns_those_are_shown_that_differ():
    many = NUMBERS.model_copy(update={"columns": MANY, "shape": (40,)})
    other = many.model_copy(update={"columns": [*MANY[:30], *reversed(MANY[30:])]})
    with pytest.raises(
        UserError, match=r"the columns \.\.\. c30, c31.*, and given them as \.\.\. c39"
    ):
        check_same_inputs(reads(many), reads(other), "it")


def test_what_is_not_known_is_not_compared():
    plain = reads_of_example(torch.zeros(1, 2), {})
    check_same_inputs(reads(NUMBERS), plain, "it")
    check_same_inputs(plain, reads(NUMBERS.model_copy(update={"columns": ["b", "a"]})), "it")
    check_same_inputs(reads(IDS), reads(IDS.model_copy(update={"shape": (7,)})), "it")
    with pytest.raises(UserError, match="trained on inputs of 2, and given 3"):
        check_same_inputs(plain, reads_of_example(torch.zeros(1, 3), {}), "it")
    with pytest.raises(UserError, match="tensors named '', and given 'x', 'y' here"):
        check_same_inputs(
            plain, reads_of_example({"x": torch.zeros(1, 2), "y": torch.zeros(1)}, {}), ""
        )


def test_numbers_of_a_card_are_no_names_unless_columns_are_called_so():
    card = NUMBERS.model_copy(update={"columns": ["x0", "x1"]})
    here = reads(NUMBERS)
    check_same_inputs(reads_of_card(card, here, source=True), here, "it")
    swapped = reads(NUMBERS.model_copy(update={"columns": ["x1", "x0"]}))
    with pytest.raises(UserError, match="the columns x0, x1, and given them as x1, x0"):
        check_same_inputs(reads_of_card(card, swapped, source=True), swapped, "it")


def test_a_source_is_told_what_to_read_unless_the_user_has_chosen():
    source = Npz("a.npz", {"t": "multiclass"})
    assert source.options_to_read(IMAGE, ["path", "targets"]) == {"input": "image"}
    assert source.options_to_read(IMAGE, ["path", "input"]) == {}
