"""Fine-tuning any causal language model of transformers on questions with worked answers, and asking it others.

The protocol is that of LLM-Adapters (Hu et al., EMNLP 2023) and HypLoRA (arXiv 2410.04010): one template, answers
written greedily (the papers search with four beams), a number or an option taken out of the text. What differs, on
purpose: only the answer counts in the loss unless asked otherwise, and test questions are taken out of the training
set. Needs the extra `peft`, which brings transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from torch import nn

from workbench.data import prompts
from workbench.data.prompts import Prompt
from workbench.errors import DataError, ParameterError
from workbench.evaluation.answers import exact_match
from workbench.models import hyplora_files
from workbench.models.hyplora_adapters import inject
from workbench.training.adapter_values import sorted_values
from workbench.training.fine_tuning import Writing, fine_tune

TEMPLATE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{question}\n\n### Response:\n"
)
TARGETS = (
    "q_proj",
    "k_proj",
    "v_proj",
    "up_proj",
    "down_proj",
)  # the paper's, as Llama, Gemma and Qwen name them
ADAPTER = {
    "r": 32,
    "lora_alpha": 64,
    "target_modules": TARGETS,
    "lora_dropout": 0.05,
}  # LoRA's in the paper's code
TRAINING = {"lr": 3e-4, "batch": 16, "warmup": 100}


def load_language_model(name: str, *, device: str = "cpu", dtype: str = "auto") -> tuple[nn.Module, Any]:
    """A causal language model and its tokenizer, by folder or by a name that transformers knows.

    dtype: "auto" (that of the files), "float32", "bfloat16". ParameterError if transformers is missing, or there is
    no such model.
    """
    if find_spec("transformers") is None:
        raise ParameterError("a language model by name needs transformers: pip install -e '.[peft]'")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
    except (OSError, ValueError) as e:
        raise ParameterError(f"no language model {name!r} could be loaded: {str(e).splitlines()[0]}") from e
    if tokenizer.eos_token_id is None:
        raise ParameterError(f"the tokenizer of {name!r} has no token that ends a text")
    return model.to(device), tokenizer


def spoken(prompt: Prompt) -> str:
    """What a model should write: the worked answer, ended by the answer itself where that is not its last word."""
    said = prompt.solution.strip()
    told = f"The answer is {prompt.answer}."
    if not said:
        return told
    return said if exact_match([said], [prompt]).right[0] else f"{said}\n{told}"


class Instructions(Writing):
    """Prompts as examples of `Writing`: template, question, answer, end.

    longest: examples of more tokens are left out; `left_out` counts them. on_question: the question counts in the
    loss, too (`train_on_inputs` of the papers' code). DataError if nothing is left.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        learned: Sequence[Prompt],
        *,
        longest: int = 256,
        on_question=False,
    ):
        self.tokenizer = tokenizer
        rows = [(self.ask(p), [*self._ids(spoken(p), False), tokenizer.eos_token_id]) for p in learned]
        kept = [(a, b) for a, b in rows if len(a) + len(b) <= longest]
        self.left_out = len(rows) - len(kept)
        if not kept:
            raise DataError(f"no example of at most {longest} tokens is left of {len(rows)}")
        if on_question:
            kept = [(a[:1], a[1:] + b) for a, b in kept]
        pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        super().__init__(model, *zip(*kept, strict=True), end=tokenizer.eos_token_id, pad=pad)

    def _ids(self, text: str, first: bool) -> list[int]:
        return self.tokenizer(text, add_special_tokens=first)["input_ids"]

    def ask(self, prompt: Prompt) -> list[int]:
        """Ids of the template with the question in it (choices included)."""
        ids = self._ids(TEMPLATE.format(question=prompt.text), True)
        return ids[:-1] if ids[-1] == self.tokenizer.eos_token_id else ids  # some tokenizers end every text

    def answer(self, asked: Sequence[Prompt], max_new: int = 256, batch: int = 16) -> list[str]:
        """What the model writes after each."""
        rows = self.write([self.ask(p) for p in asked], max_new=max_new, batch=batch)
        return [self.tokenizer.decode(row, skip_special_tokens=True) for row in rows]


def instruction_run(
    *,
    model: str,
    train: str = "math9k",
    tests: Sequence[str] = ("mawps", "svamp", "gsm8k", "aqua"),
    method: str = "hyplora",
    seed: int = 0,
    learned: int = 0,
    asked: int = 0,
    longest: int = 256,
    on_question: bool = False,
    max_new: int = 256,
    batch_asked: int = 16,
    device: str = "cpu",
    dtype: str = "auto",
    save: str = "",
    **values,
) -> dict:
    """Adapt one model, and ask it the test questions.

    model: see `load_language_model`. train, tests: names of `workbench.data.prompts`. method: of `AdapterConfig`, or
    "none". learned, asked: how many examples and questions of each set, the first ones; 0: all. max_new: tokens of an
    answer at most. save: a folder for the adapter. values: any of `AdapterConfig` and `FineTuneSettings` by name.

    Returns accuracy {test: [rate, binomial standard error]}; right {test: a truth value a question}; leaks, training
    questions taken out because a test asks them; left_out, examples that were too long; parameters, seconds, loss.

    ParameterError for a value that nothing knows; DataError for data that are not here.
    """
    config, settings = sorted_values(method, values, ("none",), ADAPTER, TRAINING)
    exams = {name: prompts.load(name, "test")[: asked or None] for name in tests}
    source = prompts.load(train, "train")
    clean = prompts.without(source, *exams.values())
    base, tokenizer = load_language_model(model, device=device, dtype=dtype)
    base.requires_grad_(False)
    task = Instructions(base, tokenizer, clean[: learned or None], longest=longest, on_question=on_question)
    row: dict = {
        "leaks": len(source) - len(prompts.without(source, *exams.values())),
        "left_out": task.left_out,
    }
    if config:
        inject(base, config, seed=seed)
        fit = fine_tune(base, task.loss, len(task), settings, seed=seed, report=settings.steps)
        row |= {"seconds": fit.seconds, "loss": fit.history[-1]["loss"] if fit.history else None}
    row["parameters"] = sum(p.numel() for p in base.parameters() if p.requires_grad)
    if save and config:
        hyplora_files.save(base, save)
    found = {n: exact_match(task.answer(p, max_new, batch_asked), p) for n, p in exams.items()}
    row["accuracy"] = {n: [a.rate, a.se] for n, a in found.items()}
    return row | {"right": {n: [int(x) for x in a.right] for n, a in found.items()}}
