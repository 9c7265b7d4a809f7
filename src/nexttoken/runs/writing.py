"""Open answers of a finished run: what may be changed of how they are written, and the writing itself."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nexttoken.build import Parts, make
from nexttoken.data.files import hash_text
from nexttoken.errors import UserError
from nexttoken.inference import Inference
from nexttoken.runs.folder import FoldFolder
from nexttoken.settings import PredictSettings
from nexttoken.types import Example, TextPredictions

TRANSFORMERS = {"_target_": "nexttoken.engine.text_engines.transformers", "_partial_": True}


@dataclass(frozen=True)
class Writing:
    """What of a run may change where its answers are open: how they are asked for and written, and by which fold."""

    inference: Mapping[str, Any] = field(default_factory=dict)  # a `_target_` node; empty: the run's own
    generation: Mapping[str, Any] = field(default_factory=dict)  # changed settings
    fold: int | None = None  # None: the first finished one
    folder: Path | None = None  # of what is written already; None: in the fold's own, which may be read-only
    engine: Mapping[str, Any] = field(default_factory=lambda: TRANSFORMERS)

    @classmethod
    def of(cls, settings: PredictSettings) -> "Writing":
        changed = {key: value for key, value in settings.generation.items() if value is not None}
        folder = Path(settings.submissions_dir) / "written"
        return cls(settings.inference, changed, settings.fold, folder, settings.engine)

    @property
    def is_none(self) -> bool:
        """Whether everything is the run's own, but for where it is kept."""
        return self == Writing(folder=self.folder)

    def write(
        self, fold: FoldFolder, parts: Parts, batch_tokens: int, inference: Inference, examples: list[Example]
    ) -> TextPredictions:
        """Write answers with the fold's model; a killed call goes on where it stopped.

        Raises UserError where the run's folder is read-only, as on Kaggle, and no other one was given.
        """
        folder = self.folder or fold.path / "written"
        if not self.folder and not os.access(fold.path, os.W_OK):
            raise UserError(
                f"{fold.path} is read-only, so answers cannot be kept there; load_run(..., written='written')"
            )
        settings = parts.settings.generation
        made_by = f"{fold.path.resolve()} {fold.mark}"
        asked = [made_by, settings.model_dump(), parts.settings.inference, dict(self.engine)]
        name = hash_text(json.dumps(asked))[:16]
        engine, head = make(dict(self.engine), "engine"), make(parts.settings.head, "head")
        writer = engine(fold.path, parts.settings, parts.prompt, head, batch_tokens)
        return inference(examples, lambda views: writer.write(views, settings, folder / f"{name}.jsonl", made_by))


UNCHANGED = Writing()
