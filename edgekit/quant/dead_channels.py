"""Use of dead channels: copies of the channel whose rounding costs most, offset by fractions of a step.

A depthwise filter takes differences of neighbouring values, and in flat parts of an image their rounding errors are
the same over large areas: one channel can cause most of a network's error. If a ReLU holds another channel at zero
for every image, that one can carry a copy. The float network computes the same and no shape changes; the mean of n
copies that are 1/n of a step apart is n times as fine, which divides the power of the error by n**2. (Duplicated
channels: outlier channel splitting, Zhao et al. 2019, arXiv:1901.09504; their offsets: dithering.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import fx, nn

from edgekit.quant import loss, operators, placement, simulate
from edgekit.quant.naming import tensor_names
from edgekit.quant.simulate import Suffix
from edgekit.quantization import CalibrationTable, Grid, LayerWeights

IMAGES = 16  # to choose on, and the same number to judge on
LEAST_SHARE = 0.1  # of the error of all rounded tensors, caused by one tensor alone
MOST_MEASURED = 12  # channels of one tensor
_MARGIN = 2.0  # times the range that calibration observed
_CHUNK = 8
Chunks = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Triple:
    """A convolution, the depthwise one after it and the 1x1 after that: names of layers and tensors.

    Attributes:
        tensor: input of the depthwise convolution. end: input of the 1x1 convolution.
    """

    first: str
    tensor: str
    depthwise: str
    end: str
    last: str

    @property
    def layers(self) -> tuple[str, str, str]:
        """The three layers, in the order of the graph."""
        return self.first, self.depthwise, self.last


@torch.inference_mode()
def rewritten(
    folded: fx.GraphModule, table: CalibrationTable, grids: dict[str, Grid], images: torch.Tensor
) -> dict[str, LayerWeights]:
    """Return the float weights of the layers that change; with them the network computes the same as before.

    A change is kept if two things hold on held-out images: the scores of the float network change by less than
    `loss.UNCHANGED_DB`, and those of the network with `grids` come nearer to them.

    Args:
        grids: the tensors that will be rounded. images: normalized float32 (N, 3, H, W); the first 32 are used.
    """
    chosen, judged = (images[side::2][:IMAGES].split(_CHUNK) if len(images) > side else () for side in (0, 1))
    found: dict[str, LayerWeights] = {}
    network, everything = folded, -1.0
    for triple in triples(folded) if judged else []:
        dead = dead_channels(network, table, triple)
        if not dead or triple.tensor not in grids:
            continue
        if everything < 0:
            everything = _rounded_error(folded, folded, grids, chosen)
        plan = _plan(network, triple, grids[triple.tensor], dead, LEAST_SHARE * everything, chosen)
        if not plan:
            continue
        layers = {**found, **with_copies(network, triple, plan, grids[triple.tensor].scale)}
        changed = placement.with_weights(folded, layers)
        if _is_better(folded, network, changed, grids, judged):
            network, found = changed, layers
    return found


def triples(folded: fx.GraphModule) -> list[Triple]:
    """Return the places where a dead channel can be a copy of another.

    Rules:
    1. A Conv2d in one group; an activation that is zero below zero; a depthwise Conv2d with as many outputs as
       inputs, padded with zeros; perhaps an activation; a 1x1 Conv2d in one group, unpadded.
    2. Each is the only reader of its input, and is called once.
    3. All three have a bias.
    """
    names, calls = tensor_names(folded.graph), Counter(str(node.target) for node in folded.graph.nodes)

    def conv(node: fx.Node | None) -> nn.Conv2d | None:
        module = None if node is None or calls[str(node.target)] > 1 else operators.module_of(folded, node)
        return module if isinstance(module, nn.Conv2d) and module.bias is not None else None

    found = []
    for name, (node, _) in placement.layers(folded).items():
        first, active = conv(node), operators.only_reader(node)
        if first is None or first.groups > 1 or active is None or not placement.is_zero_below_zero(folded, active):
            continue
        middle = operators.only_reader(active)
        depthwise = conv(middle)
        if middle is None or depthwise is None or not placement.is_plain_depthwise(depthwise):
            continue
        end, last = middle, operators.only_reader(middle)
        if last is not None and placement.is_fused_activation(folded, last):
            end, last = last, operators.only_reader(last)
        pointwise = conv(last)
        if last is not None and pointwise is not None and _is_pointwise(pointwise):
            found.append(Triple(name, names[active], names[middle], names[end], names[last]))
    return found


def _is_pointwise(module: nn.Conv2d) -> bool:
    return module.kernel_size == (1, 1) and module.groups == 1 and module.padding in (0, (0, 0), "valid")


def _modules(network: fx.GraphModule, triple: Triple) -> list[operators.Weighted]:
    layers = placement.layers(network)
    return [layers[name][1] for name in triple.layers]


def _nodes(network: fx.GraphModule) -> dict[str, fx.Node]:
    return {name: node for node, name in tensor_names(network.graph).items()}


def dead_channels(network: fx.GraphModule, table: CalibrationTable, triple: Triple) -> list[int]:
    """Return the channels of the triple's tensor that are zero for any image.

    Their largest possible value before the activation is not above zero: a bound by the weights, with every input
    anywhere within twice the range that calibration observed.
    """
    node, module = placement.layers(network)[triple.first]
    source = tensor_names(network.graph)[node.all_input_nodes[0]]
    span = table.seen.get(source) or table.ranges.get(source)
    if span is None or module.bias is None:
        return []
    weight = module.weight.detach().double().flatten(1) * _MARGIN
    most = torch.maximum(weight * span.low, weight * span.high).sum(1) + module.bias.detach().double()
    return [int(channel) for channel in (most <= 0).nonzero()]


def _plan(
    network: fx.GraphModule, triple: Triple, grid: Grid, dead: list[int], least: float, chunks: Chunks
) -> dict[int, list[int]]:
    """Return channel -> dead channels that become its copies; empty if rounding the tensor costs less than `least`."""
    (whole,) = _errors(network, triple.tensor, chunks, lambda value: [simulate.fake_quantize(value, grid)])
    if whole < least or whole == 0:
        return {}
    near = _near_errors(network, triple, grid, chunks)
    near[dead] = -1.0
    measured = [int(c) for c in near.argsort(descending=True, stable=True)[:MOST_MEASURED] if near[c] > 0]

    def one_rounded(value: torch.Tensor) -> Iterator[torch.Tensor]:
        rounded = simulate.fake_quantize(value, grid)
        for channel in measured:
            one = value.clone()
            one[:, channel] = rounded[:, channel]
            yield one

    errors = dict(zip(measured, _errors(network, triple.tensor, chunks, one_rounded)))
    return _assign(errors, dead)


def _assign(errors: dict[int, float], dead: list[int]) -> dict[int, list[int]]:
    """Assign each dead channel to the channel with the largest remaining error; n copies divide it by n**2."""
    plan: dict[int, list[int]] = {}
    for slot in dead if errors else []:
        worst = max(errors, key=lambda channel: errors[channel] / (1 + len(plan.get(channel, []))) ** 2)
        plan.setdefault(worst, []).append(slot)
    return plan


def _errors(
    network: fx.GraphModule,
    tensor: str,
    chunks: Chunks,
    variants: Callable[[torch.Tensor], Iterable[torch.Tensor]],
) -> list[float]:
    """Return the error in the scores (`loss.power`) of each variant of a tensor, everything else exact."""
    moved: dict[int, list[torch.Tensor]] = {}
    for images in chunks:
        suffix = Suffix(network, tensor, images)
        wanted = suffix.scores(suffix.value)
        for number, value in enumerate(variants(suffix.value)):
            moved.setdefault(number, []).append(loss.relative(suffix.scores(value), wanted))
    return [loss.power(each) for each in moved.values()]


def _rounded_error(folded: fx.GraphModule, network: fx.GraphModule, grids: dict[str, Grid], chunks: Chunks) -> float:
    """Return the error (`loss.power`) of `network` with rounded tensors against the scores of `folded`."""
    rounded = simulate.Simulation(network, grids)
    return loss.of(rounded.run, chunks, [folded(images) for images in chunks])


def _near_errors(network: fx.GraphModule, triple: Triple, grid: Grid, chunks: Chunks) -> torch.Tensor:
    """Return the power of the error that rounding each channel causes after the 1x1 convolution (channels,)."""
    nodes, last = _nodes(network), _modules(network, triple)[2]
    total = torch.zeros(len(_modules(network, triple)[0].weight), dtype=torch.float64)
    for images in chunks:
        value = Suffix(network, triple.tensor, images).value
        ends = []
        for each in (value, simulate.fake_quantize(value, grid)):
            end = operators.run_node(network, nodes[triple.depthwise], each)
            ends.append(end if triple.end == triple.depthwise else operators.run_node(network, nodes[triple.end], end))
        total += (ends[1] - ends[0]).square().sum((0, 2, 3)).double()
    return total * last.weight.double().square().sum((0, 2, 3))


def with_copies(
    network: fx.GraphModule, triple: Triple, plan: dict[int, list[int]], step: float
) -> dict[str, LayerWeights]:
    """Return the float weights of the triple's layers with copies in dead channels.

    The k-th of n is offset by ``(k - (n - 1) / 2) / n`` of a step; the depthwise bias removes the offset. Offsets
    add up to zero, so that they also cancel in the padding and where an activation clips.

    Args:
        plan: channel -> dead channels that become its copies. step: of the grid of the triple's tensor.
    """
    (first, first_bias), (filters, filters_bias), (last, last_bias) = (
        (module.weight.detach().clone(), _bias(module)) for module in _modules(network, triple)
    )
    held = filters_bias.view(1, -1, 1, 1)  # output of the depthwise convolution for a dead channel
    if triple.end != triple.depthwise:
        held = operators.run_node(network, _nodes(network)[triple.end], held)
    for source, slots in plan.items():
        last_bias += last[:, slots, 0, 0] @ held[0, slots, 0, 0]
        members, bias, lost = [source, *slots], first_bias[source].clone(), filters[source].sum()
        offsets = (torch.arange(len(members)) - (len(members) - 1) / 2) / len(members) * step
        first[members], first_bias[members] = first[source].clone(), bias + offsets
        filters[members], filters_bias[members] = filters[source].clone(), filters_bias[source] - offsets * lost
        last[:, members] = last[:, source : source + 1] / len(members)
    arrays = (first, first_bias), (filters, filters_bias), (last, last_bias)
    return {name: LayerWeights(w.numpy(), b.numpy()) for name, (w, b) in zip(triple.layers, arrays)}


def _bias(module: operators.Weighted) -> torch.Tensor:
    assert module.bias is not None  # rule 3
    return module.bias.detach().clone()


def _is_better(
    folded: fx.GraphModule,
    before: fx.GraphModule,
    after: fx.GraphModule,
    grids: dict[str, Grid],
    chunks: Chunks,
) -> bool:
    """Return whether `after` equals the float network and loses less than `before` when tensors are rounded."""
    moved = _rounded_error(folded, after, {}, chunks)
    if moved > 10 ** (-loss.UNCHANGED_DB / 10):
        return False
    return _rounded_error(folded, after, grids, chunks) < _rounded_error(folded, before, grids, chunks)
