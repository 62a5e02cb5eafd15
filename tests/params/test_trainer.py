import dataclasses

import pytest

from curitorch.params import TrainerParams

IMPOSSIBLE = [
    ({"model": "digits.Model"}, "model is 'digits.Model', expected package.module:Name."),
    ({"model": "a b:C"}, "expected package.module:Name"),
    ({"model": 3}, "model is 3"),
    ({"data": ":Digits"}, "data is ':Digits'"),
    ({"epochs": 0}, "epochs is 0, expected a whole number of at least 1, or None."),
    ({"steps": -1}, "steps is -1"),
    ({"steps": 1.0}, "steps is 1.0"),
    ({"epochs": 1, "steps": 1}, "epochs is 1 and steps is 1, expected one of the two."),
    ({"batch_size": 0}, "batch_size is 0"),
    ({"batch_size": "64"}, "batch_size is '64'"),
    ({"batch_size": True}, "batch_size is True"),
    ({"batch_size": 10, "accumulate": 4}, "batch_size 10 is not divisible by accumulate 4."),
    ({"accumulate": 0}, "accumulate is 0"),
    ({"precision": 32}, "precision is 32"),
    ({"gradient_clip": 0.0}, "gradient_clip is 0.0"),
    ({"gradient_clip": float("nan")}, "gradient_clip is nan"),
    ({"seed": -1}, "seed is -1, expected a whole number from 0 to 4294967295."),
    ({"seed": 2**32}, "seed is 4294967296"),
    ({"engine": "Lean"}, "engine is 'Lean', expected one of 'lightning', 'lean'."),
    ({"model_args": [1]}, "model_args is [1], expected a dictionary"),
    ({"model_args": {1: 2}}, "model_args has the key 1, expected a string. Write '1'."),
    ({"data_args": {"a": [object]}}, "data_args['a'][0] is <class 'object'>"),
    ({"trainer_args": {"callbacks": {1, 2}}}, "trainer_args['callbacks'] is {1, 2} of type set"),
]


@pytest.mark.parametrize(("settings", "sentence"), IMPOSSIBLE, ids=lambda value: str(value)[:40])
def test_impossible_settings_are_refused_with_a_sentence(settings, sentence):
    with pytest.raises(ValueError) as refusal:
        TrainerParams(**settings)
    assert sentence in str(refusal.value)
    assert str(refusal.value).endswith(".")


def test_nested_classes_and_dotted_modules_name_a_model():
    assert TrainerParams(model="a.b.c:Outer.Inner").model == "a.b.c:Outer.Inner"


def test_arguments_are_copied_and_tuples_become_the_lists_that_the_trainer_gets():
    widths = [1, 2]
    settings = TrainerParams(model_args={"widths": widths, "shape": (3, (4,))})
    widths.append(3)
    assert settings.model_args == {"widths": [1, 2], "shape": [3, [4]]}


def test_numpy_numbers_in_arguments_become_plain_ones():
    numpy = pytest.importorskip("numpy")
    settings = TrainerParams(model_args={"rate": numpy.float64(0.5)})
    assert type(settings.model_args["rate"]) is float


def test_settings_without_a_model_or_an_end_cannot_start():
    with pytest.raises(ValueError, match=r"^model is '', expected package\.module:Class\."):
        TrainerParams(epochs=1).check_complete()
    with pytest.raises(ValueError, match="Neither epochs nor steps"):
        TrainerParams(model="a:B").check_complete()
    TrainerParams(model="a:B", steps=1).check_complete()


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainerParams().epochs = 3
