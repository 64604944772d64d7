"""HELM and its flat twins as models of Hugging Face's transformers (extra: `pip install hyperbolic-workbench[lm]`).

Importing this module registers them, so that `AutoModelForCausalLM.from_pretrained`, `generate`, `Trainer` and tools
built on those (lm-eval's `HFLM`) take them. Where it was not imported, transformers does not know the files.

>>> model = wrapped(HELM(preset("mini", vocab_size=len(pieces))))
>>> model.save_pretrained("helm"), fast_tokenizer(pieces).save_pretrained("helm")
>>> AutoModelForCausalLM.from_pretrained("helm").generate(ids, attention_mask=mask, max_new_tokens=8)

Decoding keeps what the models keep (a latent a token, or keys and values), not transformers' `Cache`, whose layers
are keys and values of one shape: greedy search, sampling and beams go with it, assisted decoding, static and
quantized caches do not. Files hold the weights as the models name them, behind "model.". `Trainer` trains them, but
does not know of `model.model.balance_step()`, which keeps experts evenly used: call it in a callback's on_step_end.
"""

from __future__ import annotations

from dataclasses import asdict

import geoopt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.errors import ParameterError, suggest
from workbench.models.decoder import Cache
from workbench.models.helm import HELM
from workbench.models.helm_config import HELMConfig
from workbench.models.language_model import LanguageModel
from workbench.models.pieces import END_TEXT, Pieces
from workbench.models.twins import DeepSeekConfig, DeepSeekTwin, LlamaTwin, TwinConfig
from workbench.nn.mamba import HALF

try:
    import transformers
except ImportError as e:
    raise ImportError("transformers must be installed: pip install 'hyperbolic-workbench[lm]'") from e
import tokenizers
from transformers.modeling_outputs import CausalLMOutputWithPast

KINDS: dict[str, tuple[type[LanguageModel], type]] = {
    "helm": (HELM, HELMConfig),
    "llama": (LlamaTwin, TwinConfig),
    "deepseek": (DeepSeekTwin, DeepSeekConfig),
}
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
# What tools look for in a config; it follows from the settings.
DERIVED = ("vocab_size", "max_position_embeddings", "num_hidden_layers", "num_attention_heads", "hidden_size")


class WorkbenchConfig(transformers.PreTrainedConfig):
    """kind: "helm", "llama" or "deepseek". settings: fields of that model's config, as `dataclasses.asdict` gives
    them; none gives nothing but an empty frame, which transformers asks for.

    ParameterError for another kind, or settings that it has not or that make no sense.
    """

    model_type = "hyperbolic_workbench"

    def __init__(self, kind: str = "helm", settings: dict | None = None, **others) -> None:
        if kind not in KINDS:
            known = ", ".join(KINDS)
            raise ParameterError(f"kind must be one of {known}, but came as {kind!r}{suggest(kind, KINDS)}")
        self.kind, self.settings = kind, settings
        if settings is not None:
            made = self.made()
            self.vocab_size, self.max_position_embeddings = made.vocab_size, made.context
            self.num_hidden_layers, self.num_attention_heads = made.layers, made.heads
            self.hidden_size = made.dim if kind == "helm" else made.width
        given = {"tie_word_embeddings": False} | dict.fromkeys(TOKENS, Pieces.END)
        super().__init__(**given | {k: v for k, v in others.items() if k not in DERIVED})

    def made(self) -> HELMConfig | TwinConfig:
        """The model's own config."""
        settings = self.settings or {}
        _, config = KINDS[self.kind]
        known = config.__dataclass_fields__
        if unknown := sorted(set(settings) - set(known)):
            hint = suggest(unknown[0], known)
            raise ParameterError(f"{self.kind} has no setting {unknown[0]!r}{hint}")
        if "vocab_size" not in settings:
            raise ParameterError("settings must say vocab_size, but came without")
        return config(**settings)


class ReadSoFar:
    """A model's own cache, with what `generate` asks of one."""

    is_compileable = False

    def __init__(self, model: LanguageModel) -> None:
        self.length = 0
        self.own = model.new_cache() if isinstance(model, HELM) else Cache(model.config.layers)

    def get_seq_length(self, layer: int = 0) -> int:
        return self.length

    def reorder_cache(self, rows: Int[Tensor, " n"]) -> None:
        """Beams that go on take their rows along."""
        if isinstance(self.own, list):
            for layer in self.own:
                layer.columns = tuple(part.index_select(0, rows) for part in layer.columns)
            return
        self.own.mask = self.own.mask.index_select(0, rows)
        for part in (self.own.keys, self.own.values):
            part[:] = [layer.index_select(0, rows) for layer in part]


class WorkbenchForCausalLM(transformers.PreTrainedModel, transformers.GenerationMixin):
    """`model`, a `HELM`, `LlamaTwin` or `DeepSeekTwin`, in transformers' clothes."""

    config_class = WorkbenchConfig
    main_input_name = "input_ids"
    base_model_prefix = ""
    accepts_loss_kwargs = False  # the loss is a mean over the targets of a batch
    _is_stateful = True  # what was read cannot be taken back: no assisted decoding
    _no_split_modules = ("Block", "Layer")

    def __init__(self, config: WorkbenchConfig) -> None:
        super().__init__(config)
        kind, _ = KINDS[config.kind]
        # Weights are made here even where transformers would only make their shapes: angles are in no file, and
        # curvatures lose digits where files are read in the dtype of the weights.
        with torch.device("cpu"):
            self.model = kind(config.made())
        self._exact = {n: b.clone() for n, b in self.model.named_buffers() if b.dtype == torch.float64}
        self.post_init()

    def _init_weights(self, module) -> None:
        """Nothing: models start themselves."""

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """As transformers', but curvatures keep their digits and points of a manifold stay such."""
        found = super().from_pretrained(*args, **kwargs)
        model = found[0] if isinstance(found, tuple) else found
        for name, value in model._exact.items():
            place, _, last = name.rpartition(".")
            part = model.model.get_submodule(place)
            part._buffers[last] = value.to(part._buffers[last].device)
        table = getattr(model.model, "embedding", None)
        if table is not None and table.as_points:
            space = model.model.manifold
            table.weight = geoopt.ManifoldParameter(table.weight.data, manifold=space)
        return found

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def get_input_embeddings(self):
        return self.model.embedding if isinstance(self.model, HELM) else self.model.embed_tokens

    def get_output_embeddings(self):
        return self.model.head if isinstance(self.model, HELM) else self.model.lm_head

    def forward(
        self,
        input_ids: Int[Tensor, "n L"],
        attention_mask: Tensor | None = None,
        labels: Int[Tensor, "n L"] | None = None,
        past_key_values: ReadSoFar | None = None,
        use_cache: bool = False,
        logits_to_keep: int = 0,
        position_ids: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> CausalLMOutputWithPast | tuple:
        """Logits of the next token, and with labels the loss of `LanguageModel.loss`.

        attention_mask: (n, all tokens, those of the cache too), not 0 where they are real, at any places; positions
        count real tokens, whatever position_ids say. labels: the ids again, -100 where nothing is asked; they are
        shifted here. logits_to_keep: of the last so many tokens, 0 for all.

        While a model is trained with labels there are no logits: the loss is taken in pieces.
        ParameterError for labels with a cache or of another shape, and all that `states` raises.
        """
        cache = past_key_values
        if cache is None and use_cache and not self.training:
            cache = ReadSoFar(self.model)
        if labels is not None and (labels.shape != input_ids.shape or (cache and cache.length)):
            raise ParameterError(
                f"labels must have the shape {tuple(input_ids.shape)} of the ids, without a cache, but came as "
                f"{tuple(labels.shape)}"
            )
        with self._precision():
            states = self._states(input_ids, attention_mask, cache)
            loss = None
            if labels is not None:
                loss = self.model.cross_entropy(states[:, :-1], labels[:, 1:]) + self.model.penalty
            logits = None
            if labels is None or not self.training:
                logits = self.model.logits(states[:, -logits_to_keep:] if logits_to_keep else states)
        out = CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=cache)
        return out.to_tuple() if return_dict is False else out

    def _precision(self):
        """Half weights need autocast: points and what normalises them stay in float32."""
        half = self.dtype in HALF
        return torch.autocast(self.device.type, self.dtype if half else None, enabled=half)

    def _states(self, ids: Tensor, mask: Tensor | None, cache: ReadSoFar | None) -> Float[Tensor, "n L d"]:
        mask = None if mask is None else mask.bool()
        if cache is None:
            return self.model.states(ids, mask)
        if isinstance(self.model, LlamaTwin) and mask is not None:
            mask = mask[:, cache.length :]  # it keeps what came before
        states = self.model.states(ids, mask, cache=cache.own)
        cache.length += ids.shape[1]
        return states


def wrapped(model: LanguageModel) -> WorkbenchForCausalLM:
    """A model of the workbench in transformers' clothes; its weights are shared, not copied.

    ParameterError for a model of another kind.
    """
    kind = next((name for name, (known, _) in KINDS.items() if type(model) is known), None)
    if kind is None:
        raise ParameterError(
            f"HELM, LlamaTwin or DeepSeekTwin can be wrapped, but {type(model).__name__} came"
        )
    out = WorkbenchForCausalLM(WorkbenchConfig(kind, asdict(model.config)))
    out.model = model
    return out.train(model.training)


def fast_tokenizer(pieces: Pieces, context: int | None = None) -> transformers.PreTrainedTokenizerFast:
    """The tokenizer for transformers: the same ids, `<|end|>` for beginning, end and padding.

    As in `Pieces` no text is cut into the end's token, not even its name. context: the longest row.
    """
    names = dict.fromkeys(("bos_token", "eos_token", "pad_token"), END_TEXT)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(pieces.json()),
        split_special_tokens=True,
        clean_up_tokenization_spaces=False,
        **names | ({} if context is None else {"model_max_length": context}),
    )


transformers.AutoConfig.register(WorkbenchConfig.model_type, WorkbenchConfig, exist_ok=True)
transformers.AutoModelForCausalLM.register(WorkbenchConfig, WorkbenchForCausalLM, exist_ok=True)
