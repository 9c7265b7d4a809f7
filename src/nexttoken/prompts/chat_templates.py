"""Jinja chat templates by name, for tokenizers without one (those of base models)."""

from nexttoken.errors import UserError, nearest

GEMMA = """{{ bos_token }}{% for message in messages %}
{% if message.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}
{{ message.content.strip() }}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""

CHATML = """{% for message in messages %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

LLAMA3 = """{{ bos_token }}{% for message in messages %}
<|start_header_id|>{{ message.role }}<|end_header_id|>

{{ message.content.strip() }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}
<|start_header_id|>assistant<|end_header_id|>

{% endif %}"""

# Stanford Alpaca's format; answers end with end-of-text, a token that every tokenizer here has.
ALPACA = """{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}

{% elif message.role == 'user' %}### Instruction:
{{ message.content }}

{% else %}### Response:
{{ message.content }}{{ eos_token }}

{% endif %}{% endfor %}{% if add_generation_prompt %}### Response:
{% endif %}"""

TEMPLATES = {"gemma": GEMMA, "chatml": CHATML, "llama3": LLAMA3, "alpaca": ALPACA}


def named(name: str) -> str:
    """The template of that name. Raises UserError for any other."""
    if name not in TEMPLATES:
        raise UserError(f"prompt.chat_template={name!r} is not known; {nearest(name, TEMPLATES)}")
    return TEMPLATES[name]
