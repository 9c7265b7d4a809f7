"""Examples in, texts out: an encoder with the engine that goes on from its prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nexttoken.engine.generation.rows import GenerationPrompt, Generator
from nexttoken.engine.generation.run import generate
from nexttoken.prompts.encode_texts import TextEncoder
from nexttoken.prompts.encoded import EncodedText
from nexttoken.settings import GenerationSettings
from nexttoken.types import Example, TextPredictions


@dataclass(frozen=True)
class Writer:
    """An encoder and an engine: examples in, texts out."""

    encoder: TextEncoder
    generator: Generator

    def write(
        self,
        examples: Sequence[Example],
        settings: GenerationSettings,
        journal: Path | None = None,
        made_by: str = "",
    ) -> TextPredictions:
        """Write an answer to each example, those that `journal` holds already excepted; `made_by` names the model."""
        encoded = self.encoder.encode_prompts(examples, settings.max_new_tokens)
        _report_cut(encoded.prompts)
        prompts = [GenerationPrompt(row.id, row.token_ids) for row in encoded.prompts]
        return generate(self.generator, prompts, settings, journal, made_by)


def _report_cut(rows: Sequence[EncodedText]) -> None:
    """Rows that only gave up demonstrations or passages have lost nothing of their own."""
    lost = [row.share_cut for row in rows if row.share_cut]
    if num_cut := sum(row.was_cut for row in rows):
        own = (
            f"{len(lost)} lost {sum(lost) / len(lost):.0%} of their own text on average"
            if lost
            else "demonstrations only"
        )
        print(f"{num_cut} of {len(rows)} prompts gave something up: {own}")
