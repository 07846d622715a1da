"""The structure of a network, found by running it: it agrees with the table that was written by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekit.models import structure, zoo
from edgekit.models.model_row import resolve


def small(body: list[nn.Module], width: int, classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Sequential(*body), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(width, classes)
    )


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 3, stride, 1)


def stages(*body: nn.Module, width: int = 8) -> tuple[str, ...]:
    return structure.examine(lambda classes: small(list(body), width, classes), 64).stages


@pytest.mark.parametrize("arch", [a for a in zoo.MODELS if "lite" not in a and a not in ("resnet101", "resnet152")])
def test_what_is_found_is_what_the_table_says(arch: str) -> None:
    row = zoo.MODELS[arch]
    found = structure.examine(lambda classes: resolve(row.builder)(num_classes=classes), row.preprocess.image_size)
    assert (found.heads, found.simple, " ".join(found.aux)) == ((row.head,), True, row.aux)
    assert (round(found.parameters / 1e6, 2), round(found.macs / 1e9, 3)) == (row.parameters_m, row.macs_g)
    without = {"features.relu0", "features.pool0"}  # hold nothing that could be frozen
    assert [[n for n in stage.split() if n not in without] for stage in found.stages] == [
        stage.split() for stage in row.stages
    ]


def test_a_stage_begins_where_the_resolution_halves() -> None:
    assert stages(conv(3, 8), conv(8, 8), conv(8, 8, 2), conv(8, 8), nn.MaxPool2d(2), conv(8, 8), conv(8, 8)) == (
        "0.0-1",
        "0.2-4",
        "0.5-6",
    )


def test_a_stem_of_one_layer_belongs_to_the_first_stage() -> None:
    body = [conv(3, 8, 2), nn.MaxPool2d(2), conv(8, 8), conv(8, 8), conv(8, 8, 2), conv(8, 8)]
    assert stages(*body) == ("0.0-3", "0.4-5")


def test_a_network_that_keeps_its_resolution_is_cut_into_equal_parts() -> None:
    assert stages(*[conv(3, 8)], *[conv(8, 8) for _ in range(7)]) == ("0.0-1", "0.2-3", "0.4-5", "0.6-7")


class Gate(nn.Module):
    """A block that halves, then computes factors of channels from their means."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.factors = conv(8, 8, 2), nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inner(x)
        return x * self.factors(x.mean((2, 3), keepdim=True))


def test_layers_on_means_do_not_end_a_stage() -> None:
    assert stages(conv(3, 8), conv(8, 8), Gate(), conv(8, 8)) == ("0.0-1", "0.2-3")


class Two(nn.Module):
    """A network with a head beside the first, and one that evaluation never uses."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body, self.first = conv(3, 8, 2), nn.Linear(8, classes)
        self.second, self.unused = nn.Linear(8, classes), nn.Sequential(nn.Linear(8, 8), nn.Linear(8, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x).mean((2, 3))
        return (self.first(x) + self.second(x)) / 2


def test_all_heads_are_found_and_those_that_do_not_run() -> None:
    found = structure.examine(Two, 32)
    assert (found.heads, found.aux, found.simple, found.stages) == (("first", "second"), ("unused",), False, ("body",))
    assert found.parameters == 8 * 27 + 8 + 2 * (8 * 1000 + 1000)
    assert found.macs == 16 * 16 * 8 * 27 + 2 * 8 * 1000


def test_a_convolution_as_head_is_not_simple() -> None:
    body = [conv(3, 8, 2), conv(8, 8)]
    found = structure.examine(
        lambda classes: nn.Sequential(*body, nn.Conv2d(8, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 32
    )
    assert (found.heads, found.simple) == (("2",), False)


def test_a_network_without_a_row_of_classes_is_none() -> None:
    with pytest.raises(ValueError, match="one row of classes"):
        structure.examine(lambda classes: nn.Sequential(conv(3, classes)), 32)


def test_no_weights_are_made_and_no_random_numbers_used_up() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    model = structure.without_values(lambda: small([conv(3, 8)], 8, 10))
    structure.examine(lambda classes: small([conv(3, 8), nn.BatchNorm2d(8)], 8, classes), 32)
    assert {value.device.type for value in model.state_dict().values()} == {"meta"}
    assert torch.equal(torch.get_rng_state(), before)


class Reading(nn.Module):
    """A network that looks at a value, which has none without memory."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.mean((2, 3)) * float(x.abs().max().item() + 1))


def test_a_network_that_looks_at_values_runs_on_the_cpu() -> None:
    assert structure.examine(Reading, 32).heads == ("head",)


def test_a_wrong_size_is_found_by_trying() -> None:
    def fixed(classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, classes))

    assert structure.runs(fixed, 64)
    assert not structure.runs(fixed, 63)
