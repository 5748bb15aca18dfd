"""The model as training and evaluation run it: rows in; NLL, token values and states out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from erulab import logprobs
from erulab.costs.flops import TokenCounts
from erulab.costs.ledger import Ledger
from erulab.costs.shapes import NO_ADAPTERS, Adapters
from erulab.models.attention import PACKED, reads_trees
from erulab.models.forwards import PartShown, ReferenceView, Run
from erulab.models.head import head_of
from erulab.models.meter import Meter, token_counts
from erulab.models.packing import Packing, pack
from erulab.models.part_reader import PartReader
from erulab.models.request import ForwardRequest
from erulab.models.skipping import skipped_blocks
from erulab.tokens.batch import Batch

# Names of the norm after the last block, of which each family has one: GPT-NeoX and OPT, Nemotron-H, LFM 2 and BioGPT
# have the last four.
NORMS = ("norm", "final_layernorm", "ln_f", "final_layer_norm", "norm_f", "embedding_norm", "layer_norm")


@dataclass(frozen=True)
class ForwardLayout:
    """The layout of the rows in one forward, and the numbers of tokens it computes."""

    packing: Packing | None  # None: padded rows
    counts: TokenCounts


class Policy(nn.Module):
    """A causal language model whose forward shows what is asked for: by default the NLL of supervised tokens.

    It is the module that an engine wraps, so that ZeRO's hooks see one ordinary forward. Adversaries hook `blocks` and
    `norm`: the input of block l is h_l, the input of `norm` is h_L.
    """

    def __init__(self, model: PreTrainedModel, ledger: Ledger | None = None, adapters: Adapters = NO_ADAPTERS) -> None:
        """
        Args:
            ledger: adds up the cost of all forwards and backwards.
            adapters: of the model, if it has any; costs depend on them.
        """
        super().__init__()
        self.model = model
        self._meter = Meter(self._causal(), ledger or Ledger(), adapters)
        # Of the latest forward. Hooks inside the model see only its states, and gradient checkpointing runs them again
        # during backward: the layout must be known here until the next forward begins.
        self._latest = ForwardLayout(None, TokenCounts())
        self._first_block = 0
        self._last_block: int | None = None
        self._compiled = False

    @property
    def ledger(self) -> Ledger:
        return self._meter.ledger

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def blocks(self) -> nn.ModuleList:
        blocks = _submodule(self._stack(), ("layers", "h", "blocks"))
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    @property
    def norm(self) -> nn.Module:
        return _submodule(self._stack(), NORMS)

    @property
    def head(self) -> logprobs.Head:
        return head_of(self._causal())

    @property
    def output_matrix(self) -> nn.Module:
        """The linear layer inside `head`, whose weight DeepSpeed must know."""
        matrix: nn.Module = self._causal().get_output_embeddings()
        return matrix

    def forward(
        self, batch: Batch, request: ForwardRequest | None = None, reference: ReferenceView | None = None
    ) -> tuple[PartShown, ...]:
        """Computes what each part of the batch is asked for, in one forward.

        Args:
            batch: on this module's device.
            request: the parts of the batch; None: the NLL of all supervised tokens, as one part.
            reference: what the model before unlearning computed for the parts that compare with it.
        Returns:
            What is shown of each part.
        """
        if request is None:
            nll = self.token_nll(batch)
            return (PartShown(nll, {}, {}, {}),)
        run = self.run(batch, request.layers, request.last_layer)
        if torch.is_grad_enabled():
            self._meter.training(self._latest.counts, request.last_layer)
        return PartReader(self.head, self.norm, self._meter).show(batch, run, request, reference)

    def token_nll(self, batch: Batch) -> torch.Tensor:
        """Computes the (tokens,) NLL of the batch's supervised tokens in nats, row-major."""
        nll = logprobs.token_nll(self.hidden(batch), self.head, batch.input_ids[batch.supervised])
        if torch.is_grad_enabled():
            self._meter.training(self._latest.counts)
        return nll

    def hidden(self, batch: Batch, *, scoring: bool = False) -> torch.Tensor:
        """Computes the state that each supervised token is predicted from.

        Args:
            scoring: whether neither gradients are needed nor hooks edit states, so that more layouts are possible.
        Returns:
            (tokens, width), row-major. The caller's pass of the head over all of them is counted here.
        """
        return self._hidden(batch, self._choose_packing(batch, scoring), head_reads=True)

    def hidden_padded(self, batch: Batch) -> torch.Tensor:
        """Computes `hidden` from padded rows, under the batch's own attention mask, which may have gaps."""
        return self._hidden(batch, None, head_reads=True)

    def _hidden(self, batch: Batch, packing: Packing | None, *, head_reads: bool) -> torch.Tensor:
        """Computes the state that each supervised token is predicted from.

        Args:
            packing: the layout of the rows; None: padded.
            head_reads: whether the head reads each of them once; otherwise its passes are counted where they happen.
        """
        by_pieces = packing is not None and self._by_pieces()
        counts = token_counts(batch, packing, by_pieces)
        self._latest = ForwardLayout(packing, counts if head_reads else replace(counts, supervised=0))
        self._meter.forward(self._latest.counts, self._first_block, self._last_block)
        if packing is None:
            states = self._inner()(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            ).last_hidden_state
            return states[:, :-1][batch.supervised[:, 1:]]
        device = batch.input_ids.device
        # transformers takes a mask with four axes as it is. Attention by pieces does not read it.
        how = (
            {"attention_mask": torch.zeros(1, 1, 1, 1), "pieces": packing.pieces}
            if by_pieces
            else {"attention_mask": packing.mask().to(device)}
        )
        states = self._inner()(
            input_ids=torch.tensor([packing.ids], device=device),
            position_ids=torch.tensor([packing.positions], device=device),
            use_cache=False,
            **how,
        ).last_hidden_state
        return states[0][packing.index.to(device)[:, :-1][batch.supervised[:, 1:]]]

    def run(self, batch: Batch, layers: Sequence[int] = (), last: int | None = None) -> Run:
        """Runs the batch and keeps the states at some layers.

        Args:
            layers: whose states are kept, as the model continues with them: after the edits of hooks set before.
            last: the forward ends at this layer, if given; nothing above it is computed.
        """
        packing = self._choose_packing(batch, scoring=False)
        if not layers:
            return Run(self._hidden(batch, packing, head_reads=False), {})
        kept: dict[int, torch.Tensor] = {}

        def keep(layer: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
                # Gradient checkpointing runs hooks again in backward, on other tensors: the first is the graph's.
                kept.setdefault(layer, args[0])

            return hook

        modules = {layer: self.norm if layer == len(self.blocks) else self.blocks[layer] for layer in layers}
        hooks = [module.register_forward_pre_hook(keep(layer)) for layer, module in modules.items()]
        try:
            with self._skip_blocks_from(last):
                hidden = self._hidden(batch, packing, head_reads=False)
        finally:
            for hook in hooks:
                hook.remove()
        return Run(
            hidden if last is None else None, {layer: self.unpack_states(states) for layer, states in kept.items()}
        )

    @contextmanager
    def _skip_blocks_from(self, layer: int | None) -> Iterator[None]:
        """Skips blocks `layer`, `layer` + 1, ... inside the context; None: skips none."""
        with ExitStack() as stack:
            if layer is not None:
                stack.enter_context(skipped_blocks(self.blocks[layer:], self._causal().config.model_type))
            self._last_block = layer
            try:
                yield
            finally:
                self._last_block = None

    @contextmanager
    def skip_blocks_below(self, layer: int) -> Iterator[None]:
        """Skips blocks 0..layer-1 inside the context.

        The caller must replace h_layer by a hook, for example with its cached value.
        """
        with skipped_blocks(self.blocks[:layer], self._causal().config.model_type):
            self._first_block = layer
            try:
                yield
            finally:
                self._first_block = 0

    def state_gradient(self, loss: torch.Tensor, states: torch.Tensor, layer: int) -> torch.Tensor:
        """Computes the gradient of `loss` with respect to `states`, which were added to h_layer.

        The gradients of parameters stay untouched.
        """
        self._meter.state_gradient(self._latest.counts, layer)
        return torch.autograd.grad(loss, states)[0]

    def unpack_states(self, states: torch.Tensor) -> torch.Tensor:
        """Returns states inside the latest forward as (rows, length, width), whatever its layout."""
        packing = self._latest.packing
        return states if packing is None else packing.unpack(states)

    def pack_states(self, rows: torch.Tensor) -> torch.Tensor:
        """Returns (rows, length, width) states in the layout of the latest forward: the inverse of `unpack_states`."""
        packing = self._latest.packing
        return rows if packing is None else packing.pack(rows)

    def compile_blocks(self) -> None:
        """Compiles each block by itself, so that hooks on blocks, and what runs between blocks, stay as they are.

        From now on rows are padded, because a block would be compiled again for the pieces of every packed batch.
        """
        self._compiled = True
        for block in self.blocks:
            block.forward = torch.compile(block.forward, dynamic=True)

    def row_nll(self, batch: Batch) -> torch.Tensor:
        """Computes the (rows,) sequence NLL in nats."""
        return logprobs.row_sums(self.token_nll(batch), batch.supervised)

    def shares_openings(self, length: int) -> bool:
        """Tells whether scoring computes a common opening of rows of up to `length` tokens once; otherwise it pads."""
        config = self._causal().config
        return not self._compiled and (self._by_pieces() or reads_trees(config, length))

    def _choose_packing(self, batch: Batch, scoring: bool) -> Packing | None:
        """Returns how to lay out the rows without padding; None if padded rows are as fast."""
        width = self._causal().config.hidden_size
        if self._compiled:
            return None
        if self._by_pieces():
            packing = pack(batch)
            return packing if packing.worth(width) else None
        if not scoring or not self.shares_openings(batch.input_ids.shape[1]):
            return None
        packing = pack(batch)
        return packing if packing.worth_in_one_call(width) else None

    def _by_pieces(self) -> bool:
        """Tells whether packed rows run with one attention call per piece. On GPUs one call over all is faster."""
        return self.device.type == "cpu" and self._causal().config._attn_implementation == PACKED

    def _causal(self) -> PreTrainedModel:
        # peft wraps the causal model.
        model: Any = self.model
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def _inner(self) -> nn.Module:
        causal = self._causal()
        return _submodule(causal, (causal.base_model_prefix,))

    def _stack(self) -> nn.Module:
        """Returns the module that holds blocks and norm: the base model, in OPT the decoder inside it."""
        inner = self._inner()
        decoder = getattr(inner, "decoder", None)
        return decoder if isinstance(decoder, nn.Module) else inner


def _submodule(module: nn.Module, names: tuple[str, ...]) -> nn.Module:
    for name in names:
        found = getattr(module, name, None)
        if isinstance(found, nn.Module):
            return found
    raise TypeError(f"{type(module).__name__} has none of {', '.join(names)}: its layout is not known to erulab")
