"""The folds of a run as answerers, one at a time: the base and the tokenizers that they share are loaded once."""

from pathlib import Path

from nexttoken.engine.answerers import Answerer, AnyEncoder, make_answerer, make_encoder
from nexttoken.engine.heads import Head
from nexttoken.engine.memory_plan.budget import with_budget
from nexttoken.engine.memory_plan.fill import with_batch_tokens
from nexttoken.errors import UserError
from nexttoken.models.fold_weights import OnBase, Weights, WholeWeights
from nexttoken.models.load import load_architecture, within_context
from nexttoken.models.saved import keeps_base, load_labels
from nexttoken.prompts.encoded import NO_LABELS
from nexttoken.prompts.label_tokens import LabelTokens
from nexttoken.prompts.prompt import Prompt
from nexttoken.settings import AUTO, Settings


class FoldModels:
    """Answerers of folds that were trained with the same settings, of which one at a time is in memory."""

    def __init__(self, settings: Settings, prompt: Prompt, head: Head, batch_tokens: int) -> None:
        self.settings, self.prompt, self.head, self.batch_tokens = settings, prompt, head, batch_tokens
        self._weights: Weights = OnBase(settings) if keeps_base(settings) else WholeWeights(settings)
        self._encoders: list[AnyEncoder] = []
        self._in_memory: Path | None = None
        self._answerer: Answerer | None = None

    def answerer(self, fold_dir: Path) -> Answerer:
        """Rebuild what a finished fold asked with; the answerer of another fold loses its model, which is another now.

        Folds between which nothing differs, as where nothing was trained, are one and the same object.
        Raises UserError when files are missing or broken, or when an adapter meets another base than its own.
        """
        labels, settings = self._labels(fold_dir), with_budget(self.settings, fold_dir)
        self._choose_batch_tokens(settings, fold_dir)  # before the weights take their memory
        folder = self._weights.folder_of(fold_dir)
        if folder != self._in_memory:
            self._let_go()
        model, tokenizer = self._weights.load(fold_dir, settings.max_tokens, self.head.num_outputs(labels))
        self._in_memory = folder
        encoder = self._encoder(tokenizer, within_context(model.config, settings.max_tokens))
        known = self._answerer
        if known is None or known.encoder is not encoder or known.labels != labels:
            self._answerer = known = make_answerer(self.head, model, encoder, labels, self.batch_tokens)
        known.forget()
        return known

    def _choose_batch_tokens(self, settings: Settings, fold_dir: Path) -> None:
        """Put a number in place of auto, for asking on this device; whole weights need nothing but their own folder."""
        if self.batch_tokens == AUTO:
            asking, model = settings.trainer.model_copy(update={"max_epochs": 0}), settings.model
            if not keeps_base(settings):
                own = {"name_or_path": str(self._weights.folder_of(fold_dir)), "revision": None, "dtype": "float32"}
                model = model.model_copy(update=own)
            settings = settings.model_copy(update={"batch_tokens": AUTO, "trainer": asking, "model": model})
            self.batch_tokens = with_batch_tokens(settings, load_architecture(settings)).batch_tokens

    def _let_go(self) -> None:
        """Whoever still holds the answerer must neither keep its memory nor ask another fold's weights unawares."""
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
        """One for all folds whose prompts come out the same."""
        for encoder in self._encoders:
            if encoder.tokenizer is tokenizer and encoder.max_tokens == max_tokens:
                return encoder
        self._encoders.append(make_encoder(self.head, tokenizer, self.prompt, max_tokens))
        return self._encoders[-1]


def load_answerer(fold_dir: Path, settings: Settings, prompt: Prompt, head: Head, batch_tokens: int) -> Answerer:
    """The answerer of one fold alone. Raises UserError as `FoldModels.answerer` does."""
    return FoldModels(settings, prompt, head, batch_tokens).answerer(fold_dir)
