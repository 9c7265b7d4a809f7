"""The probability that a model gives to other texts than the labels: high where a prompt does not ask for a label."""

from collections.abc import Sequence

import numpy as np
from torch import nn

from nexttoken.engine.batches import token_batches
from nexttoken.engine.forward.shortcuts import shortcuts
from nexttoken.engine.label_scores import collate, label_scores, num_read
from nexttoken.engine.run_batches import run_batches
from nexttoken.prompts.encode_labels import EncodedPrompt
from nexttoken.prompts.label_tokens import LabelTokens


def mass_outside(
    model: nn.Module, prompts: Sequence[EncodedPrompt], labels: LabelTokens, batch_tokens: int
) -> np.ndarray:
    """The share (N,) of a full softmax that no label has, 0 to 1, in the order of `prompts`.

    Labels of several tokens count with the probability of exactly their tokens. The logits of the whole vocabulary are
    computed at the answer's places, which predictions do not need: ask few rows.
    """
    contexts, packs, device = labels.contexts, shortcuts(model).packs, next(model.parameters()).device
    lengths = [num_read(contexts, len(prompt.token_ids), packs) for prompt in prompts]

    def labels_share(model: nn.Module, batch: Sequence[EncodedPrompt]) -> np.ndarray:
        scores = label_scores(model, collate(batch, contexts, packs).to(device), labels, whole_vocabulary=True)
        return scores.exp().sum(dim=1, keepdim=True).double().cpu().numpy()

    batches = token_batches(lengths, batch_tokens, packs)
    inside, _ = run_batches(model, prompts, lengths, batches, labels_share, "labels' share")
    return np.clip(1 - inside[:, 0], 0.0, 1.0)
