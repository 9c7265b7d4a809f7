"""The folds of a run as answerers, one at a time: a shared base model or tokenizer is loaded once."""

from pathlib import Path

from nexttoken.engine.answerers import Answerer, AnyEncoder, make_answerer, make_encoder
from nexttoken.engine.heads import Head
from nexttoken.engine.memory_plan.auto_tokens import with_batch_tokens, with_budget
from nexttoken.errors import UserError
from nexttoken.models.fold_weights import fold_weights
from nexttoken.models.load import within_context
from nexttoken.models.saved import load_labels
from nexttoken.prompts.encoded import NO_LABELS
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.prompts.prompt import Prompt
from nexttoken.settings import AUTO, Settings


class FoldModels:
    """Answerers of folds that were trained with the same settings; one at a time is in memory."""

    def __init__(self, settings: Settings, prompt: Prompt, head: Head, batch_tokens: int) -> None:
        self.settings, self.prompt, self.head, self.batch_tokens = settings, prompt, head, batch_tokens
        self._weights = fold_weights(settings)
        self._encoders: list[AnyEncoder] = []
        self._in_memory: Path | None = None
        self._answerer: Answerer | None = None

    def answerer(self, fold_dir: Path) -> Answerer:
        """The answerer of a finished fold. The answerer returned before loses its model.

        Folds that do not differ, because nothing was trained, have the same answerer.
        Raises UserError when files are missing or broken, and for an adapter of another base model.
        """
        labels, settings = self._labels(fold_dir), with_budget(self.settings, fold_dir)
        if self.batch_tokens == AUTO:  # chosen before the weights take their memory
            spec = self._weights.spec(fold_dir).change(max_tokens=settings.max_tokens, batch_tokens=AUTO)
            self.batch_tokens = with_batch_tokens(spec).settings.batch_tokens
        folder = self._weights.folder_of(fold_dir)
        if folder != self._in_memory:
            self._release()
        model, tokenizer = self._weights.load(fold_dir, settings.max_tokens, self.head.num_outputs(labels))
        self._in_memory = folder
        encoder = self._encoder(tokenizer, within_context(model.config, settings.max_tokens))
        known = self._answerer
        if known is None or known.encoder is not encoder or known.labels != labels:
            self._answerer = known = make_answerer(self.head, model, encoder, labels, self.batch_tokens)
        known.reset_counts()
        return known

    def _release(self) -> None:
        """Take the model from the answerer: whoever still has it must not use its memory or another fold's weights."""
        if self._answerer is not None:
            del self._answerer.model
        self._answerer = self._in_memory = None

    def _labels(self, fold_dir: Path) -> LabelTokens:
        labels = load_labels(fold_dir / "labels.json") if self.prompt.labels else NO_LABELS
        if labels.labels != tuple(self.prompt.labels):
            raise UserError(
                f"{fold_dir} was trained on the labels {list(labels.labels)}, not {list(self.prompt.labels)}"
            )
        return labels

    def _encoder(self, tokenizer: object, max_tokens: int) -> AnyEncoder:
        """One encoder for all folds with the same tokenizer and max_tokens."""
        for encoder in self._encoders:
            if encoder.tokenizer is tokenizer and encoder.max_tokens == max_tokens:
                return encoder
        self._encoders.append(make_encoder(self.head, tokenizer, self.prompt, max_tokens))
        return self._encoders[-1]


def load_answerer(fold_dir: Path, settings: Settings, prompt: Prompt, head: Head, batch_tokens: int) -> Answerer:
    """The answerer of one fold alone. Raises UserError as `FoldModels.answerer` does."""
    return FoldModels(settings, prompt, head, batch_tokens).answerer(fold_dir)
