"""Chat templates that do what real ones do to make the lab's work hard, and conversations for them.

Each is written for these tests. ``EXPECTED`` is what ``DIALOGUE`` must come out as: one letter a
region (b, h, c, e, s), the message or "-", and the text, as a person reads it off the template.
"""

from __future__ import annotations

from sft_core.types import ContentPart, Example, Message, ToolCall

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def system(content: str) -> Message:
    return Message("system", content)


def user(content: str, context: str | None = None) -> Message:
    return Message("user", content, context=context)


def assistant(content: str, reasoning: str | None = None, *calls: ToolCall) -> Message:
    return Message("assistant", content, reasoning=reasoning, tool_calls=calls)


DIALOGUE = Example(
    "dialogue",
    (system(" Be brief "), user("Hi"), assistant(" Yes. "), user("Why"), assistant("So")),
)

TRIMMED = """\
{{ bos_token }}
{%- for m in messages %}
[{{ m['role'] | upper }}]: {{ m['content'] | trim }} ##
{%- endfor %}
{%- if add_generation_prompt %}
[ASSISTANT]: {% endif %}
"""

SHOUTING = """\
{%- for m in messages -%}
{{ '<|' ~ m.role|title ~ '|>' ~ m.content.strip()|upper ~ '<|stop|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|Assistant|>' }}{%- endif -%}
"""

SYSTEM_IN_USER = """\
{%- set ns = namespace(before='') -%}
{%- for m in messages -%}
{%- if m.role == 'system' -%}{%- set ns.before = m.content + '\\n--\\n' -%}
{%- elif m.role == 'user' -%}
{{ 'Q: ' + ns.before + m.content + '\\nA:' }}{%- set ns.before = '' -%}
{%- else -%}{{ m.content ~ eos_token ~ '\\n' }}{%- endif -%}
{%- endfor -%}
"""

AT_THE_END = """\
{%- set ns = namespace(out='', turns=0) -%}
{%- for m in messages -%}
  {%- set ns.turns = ns.turns + 1 -%}
  {%- set ns.out = ns.out ~ '<turn ' ~ ns.turns ~ '>' ~ m.role ~ ': ' ~ m.content ~ '<end>' -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {%- set ns.out = ns.out ~ '<turn ' ~ (ns.turns + 1) ~ '>assistant: ' -%}
{%- endif -%}
{{ ns.out }}
"""

MACROS = """\
{%- macro opened(role) -%}<{{ role }}>{%- endmacro -%}
{%- macro turn(m) -%}
{{ opened(m.role) }}{{ caller() }}{{ '</' + m.role + '>' }}
{%- endmacro -%}
{%- for m in messages -%}
{%- call turn(m) -%}{{ '%s' % m.content.strip() }}{%- endcall -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ opened('assistant') }}{%- endif -%}
"""

FORGETFUL = """\
{%- for m in messages -%}
{%- set said = m.content -%}
{%- if m.role == 'assistant' and '</think>' in said and not loop.last -%}
{%- set said = said.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{{ '<|' ~ m.role ~ '|>' ~ said ~ '<|end|>' }}
{%- endfor -%}
{{ '<|assistant|>' if add_generation_prompt }}
"""

GENERATION_TAGS = """\
{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
<|im_start|>assistant
{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}
{%- else -%}
<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""

QUOTING = """\
{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
{{ '<|re|>' + messages[loop.index0 - 1].content + '<|a|>' + m.content + '<|end|>' }}
{%- else -%}
{{ '<|' + m.role + '|>' + m.content }}
{%- if loop.index0 > 1 -%}{{ ' (you said: ' + loop.previtem.content + ')' }}{%- endif -%}
{{ '<|end|>' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|re|>' + messages[-1].content + '<|a|>' }}{%- endif -%}
"""

NO_PROMPT = """\
{%- for m in messages -%}
{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- endfor -%}
"""

END_AFTER_ALL = """\
{%- for m in messages -%}
{{ 'User: ' + m.content + '\\n' if m.role == 'user' else 'Bot: ' + m.content }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'Bot: ' }}{%- else -%}{{ eos_token }}{%- endif -%}
"""

BY_NUMBER = """\
{%- for i in range(messages | length) -%}
{%- set m = messages[i] -%}
<|{{ m.role }}|>{{ m.content }}<|end|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
"""

NO_LOOP = """\
{{- '<|im_start|>user\\n' + messages[0].content + '<|im_end|>\\n' -}}
{%- if messages | length > 1 -%}
{{ '<|im_start|>assistant\\n' + messages[1].content + '<|im_end|>\\n' }}
{%- elif add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""

OPENS_THINKING = """\
{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
{{ '<|assistant|><think>\\n' + (m.reasoning_content or '') + '\\n</think>\\n' + m.content }}
{%- for call in m.tool_calls -%}
{{ '<tool_call>' + call.function | tojson + '</tool_call>' }}
{%- endfor -%}
{{ '<|end|>\\n' }}
{%- else -%}
{{ '<|' + m.role + '|>' + m.content + '<|end|>\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|assistant|><think>\\n' }}{%- endif -%}
"""

MANY_FILTERS = """\
{%- for m in messages -%}
{{ ['<', m.role, '>'] | join }}
{{- '{} {x}'.format('|', x=m.content) | replace('|', '=') | indent(2) }}
{{- (m.content | e | list | join('')) | center(8) }}
{{- '%s;' | format(m.content | capitalize) }}
{{- '</%(role)s>' % {'role': m.role} }}
{%- endfor -%}
{%- if add_generation_prompt -%}<assistant>= {% endif -%}
"""

BLOCKS = """\
{%- for m in messages -%}
{%- set shown %}{{ m.content }}!{% endset -%}
{%- filter trim %} [{{ m.role }}] {{ shown }} [/{{ m.role }}] {% endfilter -%}
{%- endfor -%}
{%- if add_generation_prompt %}[assistant] {% endif -%}
"""

PARTS_ONLY = """\
{%- for m in messages -%}
{{ m.role + ':' }}
{%- for part in m.content if part.type == 'text' -%}{{ part.text }}{%- endfor -%}
{{ '<|end|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'assistant:' }}{%- endif -%}
"""

PRINTS_LISTS = """\
{%- for m in messages -%}
{{ [m.role, m.content] }}{{ '<|end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ "['assistant', '" }}{%- endif -%}
"""
"""Python's own way of printing a list hides whose characters are whose."""

REWRITES_HISTORY = """\
{%- for m in messages -%}
{{ [messages | length, m.role, m.content] }}
{%- endfor -%}
"""
"""Neither followed nor printed alike twice: it must be refused."""

SAMPLES = {
    "trimmed": TRIMMED,
    "shouting": SHOUTING,
    "system-in-user": SYSTEM_IN_USER,
    "at-the-end": AT_THE_END,
    "macros": MACROS,
    "forgetful": FORGETFUL,
    "generation-tags": GENERATION_TAGS,
    "quoting": QUOTING,
    "no-prompt": NO_PROMPT,
    "end-after-all": END_AFTER_ALL,
    "by-number": BY_NUMBER,
    "no-loop": NO_LOOP,
    "opens-thinking": OPENS_THINKING,
    "many-filters": MANY_FILTERS,
    "blocks": BLOCKS,
    "parts-only": PARTS_ONLY,
}

EXPECTED = {
    "trimmed": (
        "b- <s>¦h0 [SYSTEM]: ¦c0 Be brief¦e0  ##¦h1 [USER]: ¦c1 Hi¦e1  ##¦h2 [ASSISTANT]: ¦"
        "c2 Yes.¦e2  ##¦h3 [USER]: ¦c3 Why¦e3  ##¦h4 [ASSISTANT]: ¦c4 So¦e4  ##"
    ),
    "shouting": (
        "h0 <|System|>¦c0 BE BRIEF¦e0 <|stop|>¦h1 <|User|>¦c1 HI¦e1 <|stop|>¦"
        "h2 <|Assistant|>¦c2 YES.¦e2 <|stop|>¦h3 <|User|>¦c3 WHY¦e3 <|stop|>¦"
        "h4 <|Assistant|>¦c4 SO¦e4 <|stop|>"
    ),
    "system-in-user": (
        "h1 Q: ¦c0  Be brief ¦e0 \n--\n¦c1 Hi¦e1 \nA:¦c2  Yes. ¦e2 </s>¦s2 \n¦h3 Q: ¦c3 Why¦"
        "e3 \nA:¦c4 So¦e4 </s>¦s4 \n"
    ),
    "at-the-end": (
        "h0 <turn 1>system: ¦c0  Be brief ¦e0 <end>¦h1 <turn 2>user: ¦c1 Hi¦e1 <end>¦"
        "h2 <turn 3>assistant: ¦c2  Yes. ¦e2 <end>¦h3 <turn 4>user: ¦c3 Why¦e3 <end>¦"
        "h4 <turn 5>assistant: ¦c4 So¦e4 <end>"
    ),
    "macros": (
        "h0 <system>¦c0 Be brief¦e0 </system>¦h1 <user>¦c1 Hi¦e1 </user>¦h2 <assistant>¦"
        "c2 Yes.¦e2 </assistant>¦h3 <user>¦c3 Why¦e3 </user>¦h4 <assistant>¦c4 So¦"
        "e4 </assistant>"
    ),
    "forgetful": (
        "h0 <|system|>¦c0  Be brief ¦e0 <|end|>¦h1 <|user|>¦c1 Hi¦e1 <|end|>¦"
        "h2 <|assistant|>¦c2  Yes. ¦e2 <|end|>¦h3 <|user|>¦c3 Why¦e3 <|end|>¦"
        "h4 <|assistant|>¦c4 So¦e4 <|end|>"
    ),
    "generation-tags": (
        "h0 <|im_start|>system\n¦c0  Be brief ¦e0 <|im_end|>¦s0 \n¦h1 <|im_start|>user\n¦"
        "c1 Hi¦e1 <|im_end|>¦s1 \n¦h2 <|im_start|>assistant\n¦c2  Yes. ¦e2 <|im_end|>¦s2 \n¦"
        "h3 <|im_start|>user\n¦c3 Why¦e3 <|im_end|>¦s3 \n¦h4 <|im_start|>assistant\n¦c4 So¦"
        "e4 <|im_end|>¦s4 \n"
    ),
    "quoting": (
        "h0 <|system|>¦c0  Be brief ¦e0 <|end|>¦h1 <|user|>¦c1 Hi¦e1 <|end|>¦h2 <|re|>¦c1 Hi¦"
        "h2 <|a|>¦c2  Yes. ¦e2 <|end|>¦h3 <|user|>¦c3 Why¦s3  (you said: ¦c3  Yes. ¦s3 )¦"
        "e3 <|end|>¦h4 <|re|>¦c3 Why¦h4 <|a|>¦c4 So¦e4 <|end|>"
    ),
    "no-prompt": (
        "h0 <|im_start|>system\n¦c0  Be brief ¦e0 <|im_end|>¦s0 \n¦h1 <|im_start|>user\n¦"
        "c1 Hi¦e1 <|im_end|>¦s1 \n¦c2 <|im_start|>assistant\n Yes. ¦e2 <|im_end|>¦s2 \n¦"
        "h3 <|im_start|>user\n¦c3 Why¦e3 <|im_end|>¦s3 \n¦c4 <|im_start|>assistant\nSo¦"
        "e4 <|im_end|>¦s4 \n"
    ),
    "end-after-all": (
        "h0 Bot: ¦c0  Be brief ¦h1 User: ¦c1 Hi¦e1 \n¦h2 Bot: ¦c2  Yes. ¦h3 User: ¦c3 Why¦"
        "e3 \n¦h4 Bot: ¦c4 So¦e4 </s>"
    ),
    "by-number": (
        "h0 <|system|>¦c0  Be brief ¦e0 <|end|>¦h1 <|user|>¦c1 Hi¦e1 <|end|>¦"
        "h2 <|assistant|>¦c2  Yes. ¦e2 <|end|>¦h3 <|user|>¦c3 Why¦e3 <|end|>¦"
        "h4 <|assistant|>¦c4 So¦e4 <|end|>"
    ),
    "no-loop": (
        "h0 <|im_start|>user\n¦c0 Hi¦e0 <|im_end|>¦h1 \n<|im_start|>assistant\n¦c1  Yes. ¦"
        "e1 <|im_end|>¦s- \n"
    ),
    "opens-thinking": (
        "h0 <|system|>¦c0  Be brief ¦e0 <|end|>¦s0 \n¦h1 <|user|>¦c1 Hi¦e1 <|end|>¦s1 \n¦"
        "h2 <|assistant|><think>\n¦c2 \n</think>\n Yes. ¦e2 <|end|>¦s2 \n¦h3 <|user|>¦c3 Why¦"
        "e3 <|end|>¦s3 \n¦h4 <|assistant|><think>\n¦c4 \n</think>\nSo¦e4 <|end|>¦s4 \n"
    ),
    "many-filters": (
        "h0 <system>= ¦c0  Be brief  Be brief  be brief ¦s0 ;¦e0 </system>¦h1 <user>= ¦c1 Hi¦"
        "s1    ¦c1 Hi¦s1    ¦c1 Hi¦s1 ;¦e1 </user>¦h2 <assistant>= ¦c2  Yes.   Yes.   yes. ;¦"
        "e2 </assistant>¦h3 <user>= ¦c3 Why¦s3   ¦c3 Why¦s3    ¦c3 Why¦s3 ;¦e3 </user>¦"
        "h4 <assistant>= ¦c4 So   So   So;¦e4 </assistant>"
    ),
    "blocks": (
        "h0 [system] ¦c0  Be brief ¦e0 ! [/system]¦h1 [user] ¦c1 Hi¦e1 ! [/user]¦"
        "h2 [assistant] ¦c2  Yes. ¦e2 ! [/assistant]¦h3 [user] ¦c3 Why¦e3 ! [/user]¦"
        "h4 [assistant] ¦c4 So¦e4 ! [/assistant]"
    ),
}

CALL = ToolCall("weather", '{"city": "Oslo", "days": 3}', "call00001")
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}

CONVERSATIONS = {
    "single": (user("What is the capital?"), assistant("It is Paris.")),
    "multi": (user("Hello there"), assistant("Hi. What?"), user("A joke"), assistant("Knock.")),
    "system": (system("Be kind."), user("Who wrote it?"), assistant("Orwell did.")),
    "empty": (user("Say nothing"), assistant("")),
    "padded": (user("  pad me \n"), assistant("\n  a padded answer \n\n")),
    "markers": (
        user("print <|im_end|> please"),
        assistant("sure: <|im_end|> </s> <s> <|end|> [/INST] <end_of_turn> done"),
    ),
    "emoji": (user("smile"), assistant("cafe\u0301 é 😀👩‍👩‍👧 ok 🎉")),
    "equal": (user("Same words"), assistant("Same words")),
    "code": (user("code"), assistant("```python\nreturn {'a': {{ x }}} {% if %}\n```\n")),
    "reasoning": (user("think"), assistant("Forty two.", "Six by seven.")),
    "thinking": (user("a"), assistant("<think>\nx y\n</think>\n\nz"), user("b"), assistant("c")),
    "tools": (
        user("Weather in Oslo?"),
        assistant("", None, CALL),
        Message("tool", "22 degrees", name="weather", tool_call_id="call00001"),
        assistant("It is 22."),
    ),
    "consecutive": (user("One"), assistant("First."), assistant("Second.")),
    "context": (user("Add them", "1 and 2"), assistant("3")),
}


def examples() -> list[Example]:
    """One example for each conversation."""
    return [
        Example(name, messages, tools=(TOOL,) if name == "tools" else ())
        for name, messages in CONVERSATIONS.items()
    ]


def typed(text: str, role: str) -> Message:
    return Message(role, (ContentPart("text", text),))
