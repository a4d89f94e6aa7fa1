"""Which keys a template reads is told only where nothing can be overlooked."""

from __future__ import annotations

import pytest

from sft_core.provenance import dialect
from sft_core.provenance.keys import keys_read
from sft_core.templates import PRESETS
from tests.sample_templates import SAMPLES

LOOP = "{% for m in messages %}%s{% endfor %}"

KNOWN = {
    "{{ 1 }}": "",
    LOOP.replace("%s", "{{ m.role ~ m['content'] }}"): "role content",
    LOOP.replace("%s", "{% if loop.first and not m.name %}{{ m['a'].b }}{% endif %}"): "name a",
    "{{ messages[0].a }}{{ messages[-1]['b'] }}{{ messages[1:][0].c }}": "a b c",
    "{% set rest = messages[1:] %}{% set one = rest[0] %}{{ one.a }}": "a",
    "{% for m in messages if m.a %}{% for p in m.b %}{{ p.c }}{% endfor %}{% endfor %}": "a b",
    "{{ messages | length }}{% if messages[0] is defined %}{{ messages[0].a }}{% endif %}": "a",
}
UNKNOWN = [
    "{{ messages }}",
    "{{ messages | tojson }}",
    "{{ messages | map(attribute='a') | join }}",
    "{{ (messages or [])[0].a }}",
    "{{ messages[messages[0].n].a }}",
    "{% set ns = namespace(m=messages) %}{{ ns.m[0].a }}",
    "{% set ns = namespace() %}{% set ns.m = messages[0] %}{{ ns.m.a }}",
    "{% macro f(x) %}{{ x.a }}{% endmacro %}{{ f(messages[0]) }}",
    "{% macro f(x=messages[0]) %}{{ x.a }}{% endmacro %}{{ f() }}",
    "{% with m = messages[0] %}{{ m.a }}{% endwith %}",
    "{% set x %}{{ messages }}{% endset %}",
    "{% for a, b in messages %}{{ a }}{% endfor %}",
    "{% for m in messages recursive %}{{ loop(m.a) }}{% endfor %}",
    "{% if 'a' in messages[0] %}a{% endif %}",
    "{% generation %}{{ messages[0] }}{% endgeneration %}",
    LOOP.replace("%s", "{{ m }}"),
    LOOP.replace("%s", "{{ m.items() }}"),
    LOOP.replace("%s", "{{ m.get('a') }}"),
    LOOP.replace("%s", "{{ m['a' ~ 'b'] }}"),
    LOOP.replace("%s", "{% set k = 'a' %}{{ m[k] }}"),
    LOOP.replace("%s", "{{ m | string }}"),
    LOOP.replace("%s", "{{ loop.previtem.a }}"),
    LOOP.replace("%s", "{{ [m][0].a }}"),
]


@pytest.mark.parametrize("template", KNOWN)
def test_keys_are_told_where_messages_are_only_looked_into(template: str) -> None:
    assert keys_read(template) == set(KNOWN[template].split())


@pytest.mark.parametrize("template", UNKNOWN)
def test_nothing_is_told_where_a_message_might_go_elsewhere(template: str) -> None:
    assert keys_read(template) is None


class Watched(dict[str, object]):
    """A message that notes what is read of it."""

    seen: set[str]

    def __getitem__(self, key: str) -> object:
        self.seen.add(key)
        return super().__getitem__(key)


@pytest.mark.parametrize("source", [*SAMPLES.values(), *(it.source for it in PRESETS.values())])
def test_a_render_reads_no_key_that_was_not_told(source: str) -> None:
    told = keys_read(source)
    if told is None:
        return
    seen: set[str] = set()
    messages = [
        Watched(role=role, content="x", name="n", tool_calls=[], thinking="t", input="", x="y")
        for role in ("system", "user", "assistant", "user", "assistant")
    ]
    for message in messages:
        message.seen = seen
    variables = {"messages": messages, "bos_token": "<s>", "eos_token": "</s>"}
    for prompt in (True, False):
        dialect.render(source, {**variables, "add_generation_prompt": prompt, "tools": None})
    assert seen <= told
