"""Sections of a recipe that are chosen by `kind`: validated, written and described by the kinds that a family has."""

import pickle
from typing import ClassVar, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from limbeck.corpus.config import Config
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.kinds import Kind, kinds_in


class Animal(Kind):
    family: ClassVar[str] = "animal"


class Plant(Kind):
    family: ClassVar[str] = "plant"
    default_kind: ClassVar[str | None] = "tree"


class Dog(Animal):
    kind: Literal["dog"] = "dog"
    legs: int = Field(4, ge=0)


class Tree(Plant):
    kind: Literal["tree"] = "tree"
    under: Animal | None = None


class Garden(Config):
    plants: tuple[Plant, ...] = Field((), strict=False)
    keeper: Animal | None = None


Animal.add(Dog)
Plant.add(Tree)


def faults(data: object) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        Garden.model_validate(data)
    return [(".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")) for fault in caught.value.errors()]


def test_a_section_becomes_the_kind_that_it_names_and_comes_back_from_plain_data() -> None:
    found = Garden.model_validate({"plants": [{}, {"kind": "tree", "under": {"kind": "dog", "legs": 3}}]})
    assert [type(plant) for plant in found.plants] == [Tree, Tree] and found.plants[1].under == Dog(legs=3)  # type: ignore[attr-defined]
    plain = found.model_dump(mode="json")
    assert plain["plants"][1] == {"kind": "tree", "under": {"kind": "dog", "legs": 3}}
    assert Garden.model_validate(plain) == found == pickle.loads(pickle.dumps(found))
    assert [kind.kind for kind in kinds_in(found)] == ["tree", "tree", "dog"]


def test_paths_of_errors_are_those_of_the_recipe() -> None:
    assert faults({"plants": [{"under": {"kind": "dog", "legs": -1}}]}) == [
        ("plants.0.under.legs", "Input should be greater than or equal to 0")
    ]
    assert faults({"plants": [{"kind": "tre"}]}) == [("plants.0", "unknown plant kind 'tre'; did you mean 'tree'?")]
    assert faults({"keeper": {"legs": 4}}) == [("keeper", "kind is missing; set it to one of dog")]
    assert faults({"keeper": 4}) == [("keeper", "expected a mapping with the settings of one animal")]


def test_a_kind_that_is_added_later_is_taken_everywhere() -> None:
    class Cat(Animal):
        kind: Literal["cat"] = "cat"

    try:
        Animal.add(Cat)
        assert isinstance(Garden.model_validate({"plants": [{"under": {"kind": "cat"}}]}).plants[0].under, Cat)  # type: ignore[attr-defined]
        schema = TypeAdapter(Garden).json_schema()
        assert sorted(schema["$defs"]) == ["Cat", "Dog", "Tree"]
        with pytest.raises(LimbeckError, match="the animal kind 'cat' is defined by .*Cat and by .*Lynx"):
            Animal.add(type("Lynx", (Cat,), {"__module__": __name__}))
    finally:
        del Animal.kinds["cat"]
    assert faults({"keeper": {"kind": "cat"}}) == [("keeper", "unknown animal kind 'cat'; known are dog")]
