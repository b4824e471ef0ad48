"""The JSON schema for editors accepts and refuses the same config files as fedbench itself."""

from __future__ import annotations

import json

import pytest

from fedbench.config import yamlfile
from fedbench.config.resolve import resolve
from fedbench.config.schema import json_schema


@pytest.fixture(scope="module")
def schema(installed):
    return json.loads(json.dumps(json_schema(installed)))


class TestSchema:
    def test_it_lists_what_is_installed_with_bounds(self, schema):
        properties = schema["properties"]
        assert set(properties) >= {"recipe", "card", "data", "plugins", "accuracy", "seed"}
        assert "fedhpro" in properties["recipe"]["enum"]
        sgd = properties["plugins"]["properties"]["sgd"]
        assert sgd["additionalProperties"] is False
        assert sgd["properties"]["lr"]["exclusiveMinimum"] == 0
        assert properties["plugins"]["additionalProperties"] is False
        assert schema["additionalProperties"] is False

    def test_it_accepts_resolved_and_partial_files(self, schema, installed):
        validate = pytest.importorskip("jsonschema").Draft202012Validator(schema).validate
        for method in installed.names("recipe"):
            validate(yamlfile.parse(resolve(installed, method).to_yaml(), "x").data)
        validate({"recipe": "fedhpro", "data": "digits", "plugins": {"sgd": None}})
        validate({"recipe": "fedhpro", "card": "digits", "without": ["hpal", "normalize"]})

    @pytest.mark.parametrize(
        "wrong",
        [
            {"recipe": "fedavgg"},
            {"roundss": 1},
            {"rounds": 0},
            {"data": "digitz"},
            {"model": {"name": "cnn", "width": 0}},
            {"accuracy": {"rulle": "last"}},
            {"plugins": {"sgd": {"lrr": 1}}},
            {"plugins": {"sgd": {"lr": -1}}},
            {"plugins": {"sgdd": {}}},
            {"recipe": "fedavg", "without": "crop"},
            {"recipe": "fedavg", "without": ["cropp"]},
        ],
        ids=str,
    )
    def test_it_refuses_what_we_refuse(self, schema, wrong):
        jsonschema = pytest.importorskip("jsonschema")
        assert not jsonschema.Draft202012Validator(schema).is_valid(wrong)
