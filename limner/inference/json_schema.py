"""What is wrong with a JSON Schema before it is compiled, by the name of the keyword.

llguidance refuses the keywords of JSON Schema that it does not follow. What it passes over is told
here: keywords of other dialects that would change what is valid, and misspelt ones, which the
standard takes for remarks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

ASSERTIONS = frozenset(
    [
        "type",
        "enum",
        "const",
        "multipleOf",
        "maximum",
        "exclusiveMaximum",
        "minimum",
        "exclusiveMinimum",
        "maxLength",
        "minLength",
        "pattern",
        "format",
        "items",
        "prefixItems",
        "additionalItems",
        "maxItems",
        "minItems",
        "uniqueItems",
        "contains",
        "minContains",
        "maxContains",
        "properties",
        "patternProperties",
        "additionalProperties",
        "propertyNames",
        "maxProperties",
        "minProperties",
        "required",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
        "unevaluatedItems",
        "unevaluatedProperties",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
        "then",
        "else",
        "$ref",
        "$dynamicRef",
        "$recursiveRef",
    ]
)
"""Keywords that say what is valid, from draft 4 to 2020-12."""

REMARKS = frozenset(
    [
        "$schema",
        "$id",
        "id",
        "$anchor",
        "$dynamicAnchor",
        "$recursiveAnchor",
        "$vocabulary",
        "$comment",
        "$defs",
        "definitions",
        "title",
        "description",
        "default",
        "example",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "contentEncoding",
        "contentMediaType",
        "contentSchema",
        "discriminator",
        "externalDocs",
        "xml",
        "links",
        "strict",
        "name",
    ]
)
"""Keywords that name things or tell people about them."""

FOREIGN = {
    "nullable": "OpenAPI's; give type as a list with 'null' in it",
    "extends": "draft 3's; use allOf",
    "disallow": "draft 3's",
    "divisibleBy": "draft 3's; use multipleOf",
}
"""Keywords of other dialects that would change what is valid."""

ONE, MANY, NAMED = "one schema", "a list of schemas", "schemas by name"
INSIDE = {
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), MANY),
    **dict.fromkeys(("properties", "patternProperties", "$defs", "definitions"), NAMED),
    **dict.fromkeys(("items", "additionalItems", "additionalProperties"), ONE),
}
"""Where further schemas stand, among the keywords that are followed."""

OLD_DRAFTS = ("draft-03", "draft-04", "draft-06", "draft-07")
DEEPEST = 100
LIKENESS = 0.85
"""How like a keyword (`difflib`) an unknown word is that must be a slip."""


def check_schema(schema: Any) -> None:
    """Raise ValueError that names what would otherwise be passed over in a JSON Schema."""
    if not isinstance(schema, Mapping | bool):
        raise ValueError(f"it must be an object or a boolean, not {str(schema)[:80]!r}")
    dialect = str(schema.get("$schema", "")) if isinstance(schema, Mapping) else ""
    old = any(draft in dialect for draft in OLD_DRAFTS)
    for part in _schemas(schema, 0):
        _check_words(part)
        beside = sorted(ASSERTIONS.intersection(part) - {"$ref"}) if "$ref" in part else []
        if old and beside:
            raise ValueError(
                f"the keyword {beside[0]} stands beside $ref, where {dialect} has no effect for "
                "it: put both into allOf, or leave it out"
            )


def _schemas(schema: Any, depth: int) -> Iterator[Mapping[str, Any]]:
    """A schema and all those in it."""
    if depth > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} deep")
    if not isinstance(schema, Mapping):
        return
    yield schema
    for word, kind in INSIDE.items():
        inside = schema.get(word)
        if kind is NAMED and isinstance(inside, Mapping):
            inside = list(inside.values())
        for part in inside if isinstance(inside, list) else [inside]:
            yield from _schemas(part, depth + 1)


def _check_words(schema: Mapping[str, Any]) -> None:
    for word in schema:
        if word in FOREIGN:
            raise ValueError(f"the keyword {word} is not supported ({FOREIGN[word]})")
        if word in ASSERTIONS or word in REMARKS or word.startswith(("_", "x-")):
            continue
        # the standard has unknown words ignored, and so a slip of the pen would be
        if meant := get_close_matches(word, sorted(ASSERTIONS), n=1, cutoff=LIKENESS):
            raise ValueError(f"the keyword {word} is unknown; did you mean '{meant[0]}'?")
