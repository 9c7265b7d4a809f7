"""Generation of open answers with a finished run: the settings that may change, and where answers are saved."""

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

TRANSFORMERS = {"_target_": "nexttoken.engine.answerers.load_transformers_writer", "_partial_": True}


@dataclass(frozen=True)
class Writing:
    """Changes to how a run generates open answers."""

    inference: Mapping[str, Any] = field(default_factory=dict)  # a `_target_` node; empty: the run's own
    generation: Mapping[str, Any] = field(default_factory=dict)  # changed settings
    fold: int | None = None  # None: the first finished one
    folder: Path | None = None  # of saved answers; None: in the fold's own, which may be read-only
    engine: Mapping[str, Any] = field(default_factory=lambda: TRANSFORMERS)

    @classmethod
    def of(cls, settings: PredictSettings) -> "Writing":
        changed = {key: value for key, value in settings.generation.items() if value is not None}
        folder = Path(settings.submissions_dir) / "written"
        return cls(settings.inference, changed, settings.fold, folder, settings.engine)

    @property
    def is_unchanged(self) -> bool:
        """Whether all but the folder is the run's own."""
        return self == Writing(folder=self.folder)

    def write(
        self, fold: FoldFolder, parts: Parts, batch_tokens: int, inference: Inference, examples: list[Example]
    ) -> TextPredictions:
        """Generate answers with the fold's model; a killed call resumes from those it saved.

        Raises UserError where the fold's folder is read-only, as on Kaggle, and no other one was given.
        """
        folder = self.folder or fold.path / "written"
        if not self.folder and not os.access(fold.path, os.W_OK):
            raise UserError(
                f"{fold.path} is read-only, so answers cannot be saved there; load_run(..., written='written')"
            )
        settings = parts.settings.generation
        made_by = f"{fold.path.resolve()} {fold.training_id}"
        identity = [made_by, settings.model_dump(), parts.settings.inference, dict(self.engine)]
        path = folder / f"{hash_text(json.dumps(identity))[:16]}.jsonl"
        engine, head = make(dict(self.engine), "engine"), make(parts.settings.head, "head")
        writer = engine(fold.path, parts.settings, parts.prompt, head, batch_tokens)
        return inference(examples, lambda views: writer.write(views, settings, path, made_by))


UNCHANGED = Writing()
