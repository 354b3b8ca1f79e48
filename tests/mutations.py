"""Adapters broken on purpose: modules with one piece of their text replaced, so that a suite can be shown to notice."""

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import pytest


@dataclass(frozen=True)
class Mutation:
    """What is broken. module: by its full name; old: is there exactly once."""

    name: str
    module: str
    old: str
    new: str


def broken(monkeypatch: pytest.MonkeyPatch, modules: Sequence[str], mutation: Mutation) -> ModuleType:
    """Return the last of `modules`, all of them loaded anew with the mutation in its place.

    modules: the mutated one and those that import it, each after what it imports.
    """
    assert mutation.module in modules
    for name in modules:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        with open(spec.origin) as file:
            text = file.read()
        if name == mutation.module:
            assert text.count(mutation.old) == 1, (
                f"{mutation.name}: its place is there {text.count(mutation.old)} times"
            )
            text = text.replace(mutation.old, mutation.new)
        module = importlib.util.module_from_spec(spec)
        # Whoever is loaded next imports this one.
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(text, spec.origin, "exec"), module.__dict__)
    return sys.modules[modules[-1]]
