"""What the variables of generators are made from when a saved position is come back to."""

from types import SimpleNamespace

from curitorch.external.autopatch.encoder import Encoder
from curitorch.external.autopatch.generator_decoder import GeneratorDecoder


def decoder_of(**variables) -> tuple[GeneratorDecoder, dict[str, dict]]:
    """Return a decoder of variables that a new process does not have, and their nodes."""
    encoder = Encoder(lambda value: False)
    nodes = {name: encoder.encode(value) for name, value in variables.items()}
    entry = {"variables": nodes, "loops": []}
    way = SimpleNamespace(
        saved={"shared": [], "modules": {}, "entries": [entry]},
        frames=[SimpleNamespace(f_locals={})],
        tracker=SimpleNamespace(namespaces={}),
    )
    return GeneratorDecoder(way), nodes


def ring() -> list:
    held: list = [1]
    held.append({"again": held, "in a tuple": (held,)})
    return held


def test_a_container_that_holds_itself_is_known_and_made_once():
    decoder, nodes = decoder_of(ring=ring())
    assert decoder.knows(nodes["ring"]["n"])
    made = decoder.decode({"k": "ref", "n": nodes["ring"]["n"]})
    assert made[0] == 1
    assert made[1]["again"] is made
    assert made[1]["in a tuple"][0] is made


def test_one_that_also_holds_what_no_data_makes_is_not_known():
    held = ring()
    held.append([object(), held])
    decoder, nodes = decoder_of(ring=held)
    assert not decoder.knows(nodes["ring"]["n"])


def test_a_tuple_in_a_list_in_itself_is_not_known_as_it_cannot_be_made_empty():
    inner: list = []
    outer = (inner,)
    inner.append(outer)
    decoder, nodes = decoder_of(outer=outer)
    assert not decoder.knows(nodes["outer"]["n"])
