"""Matrices by columns: the same values in the same memory, inside the context only."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from erulab.models import column_major


class Model(nn.Module):
    """A head tied to its embedding, two layers that share a matrix, and a small matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(300, 256), nn.Linear(256, 300, bias=False)
        self.head.weight = self.embedding.weight
        self.up, self.same, self.small = nn.Linear(256, 512), nn.Linear(256, 512), nn.Linear(4, 4)
        self.same.weight = self.up.weight


def test_matrices_turn_over_and_back_in_their_own_memory() -> None:
    model = Model()
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in model.state_dict().items()}
    data = torch.randn(7, 256)
    expected = model.up(data)
    with pytest.raises(KeyError), column_major.column_major(model):
        assert model.up.weight.stride() == (1, 512) and model.same.weight is model.up.weight
        assert model.head.weight.is_contiguous() and model.small.weight.is_contiguous()
        for name, tensor in model.state_dict().items():
            assert tensor.data_ptr() == before[name][0] and torch.equal(tensor, before[name][1])
        torch.testing.assert_close(model.up(data), expected)
        raise KeyError
    for name, tensor in model.state_dict().items():
        assert tensor.is_contiguous() and tensor.data_ptr() == before[name][0] and torch.equal(tensor, before[name][1])


def test_a_flat_buffer_still_holds_the_weights() -> None:
    """As optimizers keep them: parameters are views of one tensor."""
    layer, flat = nn.Linear(256, 512, bias=False), torch.randn(512 * 256)
    layer.weight.data = flat.view(512, 256)
    kept = flat.clone()
    with column_major.column_major(layer):
        assert not torch.equal(flat, kept)
    assert torch.equal(flat, kept) and layer.weight.data_ptr() == flat.data_ptr()
