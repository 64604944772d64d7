"""Multiple choice by likelihood: of the answers to a question, which does a language model find the likeliest?

Nothing is generated. Each answer is read after its question, and scored by the log-likelihood of its tokens; plain,
or divided by its number of characters, since a longer answer is less likely whatever it says. This is how ARC, MMLU
and the like are scored by lm-eval ("acc" and "acc_norm"), whose wording of questions is the default here.

A small model is at chance, and a likelihood knows more than the question: run the same with `template="Answer:"`,
which leaves the question out, and see what the answers alone give away.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor, nn

from workbench.data import prompts as sets
from workbench.data.prompts import Prompt
from workbench.errors import ParameterError
from workbench.evaluation.answers import Accuracy

TEMPLATE = "Question: {question}\nAnswer:"
BETWEEN = "\n\n"  # worked examples


@dataclass(frozen=True)
class MultipleChoice:
    """scores: of every question, log-likelihood of its answers, nats. lengths: their characters. answers: places of
    the right ones. shortened: how many questions lost their beginning to the context."""

    scores: tuple[NDArray[np.float64], ...]
    lengths: tuple[NDArray[np.int64], ...]
    answers: NDArray[np.int64]
    shortened: int = 0

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def plain(self) -> Accuracy:
        """The likeliest answer is the right one."""
        return self._accuracy(self.scores)

    @property
    def normalised(self) -> Accuracy:
        """The same by log-likelihood a character."""
        return self._accuracy([s / n for s, n in zip(self.scores, self.lengths, strict=True)])

    def _accuracy(self, scores: Sequence[NDArray[np.float64]]) -> Accuracy:
        chosen = [int(s.argmax()) for s in scores]
        return Accuracy(np.array(chosen) == self.answers)

    @property
    def chance(self) -> float:
        """Expected share of right answers of one who guesses; questions may have unequal numbers of answers."""
        return float(np.mean([1 / len(s) for s in self.scores]))

    def p_value(self, accuracy: Accuracy) -> float:
        """Two-sided and exact: how often guessing is at least as far on its side as `accuracy` is."""
        law = np.ones(1)
        for choices, count in zip(*np.unique([len(s) for s in self.scores], return_counts=True), strict=True):
            law = np.convolve(law, binom.pmf(np.arange(count + 1), count, 1 / choices))
        right = int(accuracy.right.sum())
        return float(min(1.0, 2 * min(law[: right + 1].sum(), law[right:].sum())))

    def verdict(self, level: float = 0.05) -> str:
        """Both accuracies beside chance, in sentences."""
        said = []
        for name, found in (("By likelihood", self.plain), ("By likelihood a character", self.normalised)):
            p = self.p_value(found)
            side = "above" if found.rate > self.chance else "below"
            differs = f"{side} chance" if p < level else "not told from chance"
            said.append(f"{name} {found} of {len(self):,} answers are right, {differs} (p = {p:.2g}).")
        return f"{' '.join(said)} Chance is {100 * self.chance:.1f} %."


def multiple_choice(
    model: nn.Module,
    encode: Callable[[str], Sequence[int]],
    prompts: Sequence[Prompt],
    *,
    shots: Sequence[Prompt] = (),
    template: str = TEMPLATE,
    start: int | None = None,
    batch: int = 16,
) -> MultipleChoice:
    """Ask a language model questions with choices.

    Args:
        model: with `states` and `logits` as HELM and its twins have, or one of transformers.
        encode: text to token ids, without special tokens.
        shots: questions put before each with their right answers.
        template: of a question; a blank and an answer follow.
        start: a token at the very beginning, such as `Pieces.END`.
        batch: rows at a time. Rows of one length go together, so that nothing is padded and scores do not depend on
            it, but for rounding.

    What is longer than the context loses its beginning.

    ParameterError for no questions, one without two choices or more, an answer without tokens or that the context
    cannot hold, nothing to read before it, a template that cannot be filled, and scores that are no numbers.
    """
    if not prompts or batch < 1:
        raise ParameterError(
            f"questions and a batch of 1 or more are needed, but {len(prompts)} and {batch} came"
        )
    for which, some in (("question", prompts), ("worked example", shots)):
        _check_choices(which, some)
    before = "".join(f"{_asked(template, shot)} {_right(shot)}{BETWEEN}" for shot in shots)
    context = _context(model)
    rows, shortened = [], 0
    for i, prompt in enumerate(prompts):
        question = ([] if start is None else [start]) + list(encode(before + _asked(template, prompt)))
        made = [_row(question, list(encode(f" {option}")), i, option, context) for option in prompt.options]
        shortened += any(len(row.ids) < len(question) + row.answer for row in made)
        rows += made
    scores = _scores(model, rows, batch)
    cuts = np.cumsum([len(prompt.options) for prompt in prompts])[:-1]
    return MultipleChoice(
        tuple(np.split(scores, cuts)),
        tuple(np.array([max(len(o), 1) for o in prompt.options]) for prompt in prompts),
        np.array([prompt.labels.index(prompt.answer) for prompt in prompts]),
        shortened,
    )


def ask(
    model: nn.Module,
    encode: Callable[[str], Sequence[int]],
    name: str = "arc_easy",
    *,
    shots: int = 0,
    limit: int = 0,
    seed: int = 0,
    **options,
) -> MultipleChoice:
    """`multiple_choice` on the test part of a set that `data.prompts` knows: "arc_easy", "arc_challenge", …

    shots: how many worked examples of its training part, drawn by `seed`. limit: how many questions, 0 for all.
    ParameterError for a set without that part or without choices, DataError for one whose file is not here.
    """
    if min(shots, limit) < 0:
        raise ParameterError(f"shots and limit are whole numbers from 0, but came as {shots} and {limit}")
    asked = sets.load(name, "test")[: limit or None]
    worked = sets.load(name, "train") if shots else []
    if shots > len(worked):
        raise ParameterError(f"{name} has {len(worked)} questions to work as examples, not {shots}")
    drawn = np.random.default_rng(seed).choice(len(worked), shots, replace=False) if shots else []
    return multiple_choice(model, encode, asked, shots=[worked[i] for i in drawn], **options)


# -- rows ----------------------------------------------------------------------------------------------
class _Row(NamedTuple):
    """A question and one answer, of which the last `answer` tokens are scored."""

    ids: list[int]
    answer: int


def _row(question: list[int], answer: list[int], place: int, text: str, context: float) -> _Row:
    if not answer:
        raise ParameterError(f"answer {text!r} of question {place}, counted from 0, has no tokens")
    if not question:
        raise ParameterError(f"question {place}, counted from 0, has no tokens to read before its answers")
    if len(answer) > context:
        raise ParameterError(
            f"an answer to question {place}, counted from 0, has {len(answer)} tokens, beyond the context of "
            f"{context}: {text[:40]!r}"
        )
    ids = question + answer  # the last one is not read, only looked for
    return _Row(ids if len(ids) <= context + 1 else ids[-int(context) - 1 :], len(answer))


def _check_choices(which: str, some: Sequence[Prompt]) -> None:
    for i, prompt in enumerate(some):
        if len(prompt.options) < 2:
            raise ParameterError(
                f"{which} {i}, counted from 0, needs two choices or more, but has {len(prompt.options)}: "
                f"{prompt.question[:40]!r}"
            )


def _asked(template: str, prompt: Prompt) -> str:
    try:
        return template.format(question=prompt.question)
    except (KeyError, IndexError, ValueError) as e:
        raise ParameterError(f"a template has one place, {{question}}, but came as {template!r}") from e


def _right(prompt: Prompt) -> str:
    return prompt.options[prompt.labels.index(prompt.answer)]


def _context(model: nn.Module) -> float:
    """Most tokens that a model reads; infinity where its config does not say."""
    config = getattr(model, "config", None)
    found = (getattr(config, name, None) for name in ("context", "max_position_embeddings", "n_positions"))
    return next((n for n in found if n), math.inf)


# -- scores --------------------------------------------------------------------------------------------
@torch.no_grad()
def _scores(model: nn.Module, rows: Sequence[_Row], batch: int) -> NDArray[np.float64]:
    scores, was_training = np.empty(len(rows)), model.training
    device = next(model.parameters()).device
    model.eval()
    try:
        for some in _batches(rows, batch):
            ids = torch.tensor([rows[i].ids for i in some], device=device)
            scores[some] = _of_batch(model, ids, [rows[i].answer for i in some]).cpu().numpy()
    finally:
        model.train(was_training)
    if np.isnan(scores).any():
        raise ParameterError(f"{int(np.isnan(scores).sum())} of {len(rows)} likelihoods are no numbers")
    return scores


def _batches(rows: Sequence[_Row], batch: int) -> Iterator[list[int]]:
    """Places of rows of one length, at most `batch` of them."""
    by_length = defaultdict(list)
    for i, row in enumerate(rows):
        by_length[len(row.ids)].append(i)
    for places in by_length.values():
        for i in range(0, len(places), batch):
            yield places[i : i + batch]


def _of_batch(model: nn.Module, ids: Int[Tensor, "n L"], answers: Sequence[int]) -> Float[Tensor, " n"]:
    """Log-likelihood of the last `answers` tokens of each row, float64; logits of those alone where that is known
    to be possible."""
    read, sought = ids[:, :-1], ids[:, 1:]
    counts = torch.tensor(answers, device=ids.device)
    scored = torch.arange(read.shape[1], device=ids.device) >= read.shape[1] - counts[:, None]
    own = hasattr(model, "states") and hasattr(model, "logits")
    logits = model.logits(model.states(read)[scored]) if own else model(input_ids=read).logits[scored]
    logs = logits.double().log_softmax(-1).gather(-1, sought[scored][:, None])[:, 0]
    total = torch.zeros(len(ids), dtype=torch.float64, device=ids.device)
    return total.index_add(0, scored.nonzero()[:, 0], logs)
