"""Saved values, put into the objects that the script has made anew; see `values`."""

from typing import Any

import torch

from ..exact import gradient_layout
from . import iterators, loader_iterators
from .plain_decoder import PlainDecoder
from .users import USERS
from .values import Mismatch, class_of, is_mutable


class Decoder(PlainDecoder):
    """Puts saved values into what the script has made anew."""

    def _module(self, node: dict[str, Any], current: Any) -> Any:
        if current is None:
            raise Mismatch(f"a module {node['t']} that the script does not make before")
        value = self._take(node, current)
        if node.get("layout") is not None:
            try:
                gradient_layout.put_layout(value, node["layout"])
            except gradient_layout.OtherLayout as error:
                raise Mismatch(f"a DistributedDataParallel of {error}") from error
        value.training = node["training"]
        for short, own in (("p", value._parameters), ("m", value._modules)):
            if set(node[short]) != {name for name, each in own.items() if each is not None}:
                raise Mismatch(f"a module {node['t']} with other parts than the saved one")
            for name, each in node[short].items():
                found = self.decode(each, own[name])
                if found is not own[name]:
                    own[name] = found
        for name, each in node["b"].items():
            self._put_buffer(value, name, each)
        self._put_attributes(value, node["a"], all_of_them=False)
        return value

    def _put_buffer(self, module: torch.nn.Module, name: str, node: dict[str, Any]) -> None:
        own = module._buffers
        if node["k"] == "ref":
            own[name] = self._made[node["n"]]
            return
        saved, old = node["v"], own.get(name)
        if old is not None and old.shape == saved.shape and old.dtype == saved.dtype:
            with torch.no_grad():
                old.copy_(saved)
            saved = old
        own[name] = self._made[node["n"]] = saved

    def _optimizer(self, node: dict[str, Any], current: Any) -> Any:
        if current is None or len(node["groups"]) != len(current.param_groups):
            raise Mismatch("an optimizer with other parameter groups than the saved one")
        value = self._take(node, current)
        for group, saved in zip(value.param_groups, node["groups"], strict=True):
            for name, each in saved.items():
                if not (isinstance(each, dict) and each["k"] == "opaque"):
                    group[name] = self.decode(each, group.get(name))
        parameters = [each for group in value.param_groups for each in group["params"]]
        if len(parameters) != len(node["params"]):
            raise Mismatch("an optimizer with other parameters than the saved one")
        value.state.clear()
        for parameter, own, state in zip(parameters, node["params"], node["state"], strict=True):
            self.decode(own, parameter)
            if state is not None:
                value.state[parameter] = {
                    name: self._of_state(each, parameter) for name, each in state.items()
                }
        return value

    def _of_state(self, node: Any, parameter: torch.Tensor) -> Any:
        if isinstance(node, dict) and node["k"] == "shared":
            saved = self._shared[node["s"]]
            on_device = saved.dim() > 0 or saved.device.type != "cpu"
            return saved.to(parameter.device).clone() if on_device else saved.clone()
        return self.decode(node)

    def _scaler(self, node: dict[str, Any], current: Any) -> Any:
        if current is None:
            raise Mismatch(f"a {node['k']} object that the script does not make before")
        current.load_state_dict(self.decode(node["v"]))
        return self._take(node, current)

    _stateful = _scaler

    def _loader(self, node: dict[str, Any], current: Any) -> Any:
        if current is None:
            raise Mismatch("a DataLoader that the script does not make before")
        value = self._take(node, current)
        if "workers" in node:
            loader_iterators.rebuild_workers(node["workers"], value)
        for name, own in (
            ("generator", value.generator),
            ("sampler", value.sampler),
            ("batches", value.batch_sampler),
            ("data", value.dataset),
        ):
            self.decode(node[name], own)
        return value

    def _object(self, node: dict[str, Any], current: Any) -> Any:
        if current is not None:
            value = self._take(node, current)
            self._put_attributes(value, node["a"], all_of_them=not USERS.is_class(type(value)))
            return value
        kind = class_of(node["t"])
        if not USERS.is_class(kind):
            raise Mismatch(f"an object of {node['t']} that the script does not make before")
        value = self._take(node, object.__new__(kind))
        self._put_attributes(value, node["a"], all_of_them=True)
        return value

    def _put_attributes(self, value: Any, saved: dict[str, Any], *, all_of_them: bool) -> None:
        for name, node in saved.items():
            if isinstance(node, dict) and node["k"] == "opaque":
                continue
            old = getattr(value, name, None)
            new = self.decode(node, old)
            if new is old or not (all_of_them or is_mutable(node) or self._wanted(name)):
                continue
            if isinstance(value, torch.nn.Module):
                value.__dict__[name] = new
            else:
                object.__setattr__(value, name, new)

    def _iterator(self, node: dict[str, Any], current: Any) -> Any:
        at = node["at"]
        if at["k"] == "loader":
            loader = self.decode(node["loader"])
            return self._take(node, iterators.rebuild(at, loader, 0))
        if current is None:
            raise Mismatch("an iterator that the script does not make before")
        return self._take(node, iterators.rebuild(at, current, 0))
