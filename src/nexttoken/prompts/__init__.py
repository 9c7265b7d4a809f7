"""From an example to token ids: messages, text cut to a budget, chat templates, and the tokens that spell labels."""

from nexttoken.prompts.prompt import Prompt

__all__ = ["Prompt"]
