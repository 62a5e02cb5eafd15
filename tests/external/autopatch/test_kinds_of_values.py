import torch
import wrapt

from curitorch.external.autopatch import kinds_of_values
from curitorch.external.autopatch.kinds_of_values import kind_of, module_attributes


class Own(torch.nn.Linear):
    """Has an attribute of its own."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.seen = 3


def test_what_a_module_has_is_looked_at_once_its_file_is_known_as_the_users(monkeypatch):
    module = Own()
    monkeypatch.setattr(kinds_of_values.USERS, "files", set())
    assert module_attributes(module) == {}
    monkeypatch.setattr(kinds_of_values.USERS, "files", {__file__})
    assert module_attributes(module) == {"in_features": 2, "out_features": 2, "seen": 3}


def test_a_proxy_is_saved_as_the_module_that_it_stands_for_but_a_proxy_of_a_list_is_not():
    assert kind_of(wrapt.ObjectProxy(torch.nn.Linear(1, 1))) == "module"
    assert kind_of(wrapt.ObjectProxy([1])) == "opaque"
