"""Selected priors, gathered or masked, are the same priors."""

import pytest
import torch

from ssd.selected_priors import Selection, may_look

MASK = torch.tensor([[True, False, True, False], [False, False, True, True]])


def test_on_a_cpu_what_is_selected_is_gathered() -> None:
    selection = Selection.of(MASK)
    assert selection.images.tolist() == [0, 0, 1, 1]
    assert selection.priors.tolist() == [0, 2, 2, 3]
    values = torch.arange(16).view(2, 4, 2)
    assert torch.equal(selection.take(values), values[MASK])
    assert selection.sum(torch.ones(4)) == 4


def test_a_compiler_sees_shapes_that_do_not_depend_on_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not may_look(MASK)
    selection = Selection.of(MASK)
    values = torch.arange(16.0).view(2, 4, 2)
    assert torch.equal(selection.take(values), values.flatten(0, 1))
    assert selection.sum(selection.take(values)[:, 0]) == values[MASK][:, 0].sum()


def test_what_is_not_selected_may_be_no_number_and_has_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    values = torch.tensor([[1.0, float("nan")]], requires_grad=True)
    selection = Selection.of(torch.tensor([[True, False]]))
    total = selection.sum(selection.take(values))
    total.backward()
    assert total == 1
    assert values.grad.tolist() == [[1, 0]]


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_a_trace_does_not_look() -> None:
    seen = []
    torch.jit.trace(lambda x: (seen.append(may_look(x)), x)[1], MASK, check_trace=False)
    assert seen == [False]
    assert may_look(MASK)
