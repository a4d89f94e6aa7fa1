"""Checks against the template that the tokenizer brings itself."""

from __future__ import annotations

from dataclasses import replace

from sft_core.doctor.case import Case, Found
from sft_core.types import Finding, Severity, Template, TemplateError


def template_differs(case: Case) -> Found:
    own = case.tokenizer.chat_templates
    if not own or case.template.source in own.values():
        return
    name = "tool_use" if case.example.tools and "tool_use" in own else "default"
    source = own.get(name) or next(iter(own.values()))
    try:
        other = replace(case.setting, template=Template("tokenizer", source))
        text = other.render(case.example.messages, case.example).text
    except TemplateError:
        return  # it cannot print this row, so nobody would use it here
    if text != case.rendered.text:
        yield Finding(
            "template-differs",
            Severity.INFO,
            "The tokenizer brings a template of its own, which prints this row otherwise. What the "
            "model knows of conversations it learnt in that form; the lab saves the template that "
            "was trained with the model, so that both ask alike.",
            "Use the tokenizer's own template, unless you want another form on purpose.",
            fixed_template=source,
        )
