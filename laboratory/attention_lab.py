"""`dev.py world evaluate attention`: where one identity is active, with and without Clone Face Tuning (Fig. 6).

The paper shows the attention maps of the first layer of the control branch: one identity lights up in two given faces.
Here, one person acts in the regions of both faces of a held-out picture of two, and their activity is measured in each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..fpga_core.evaluation.table import Rows, markdown, paired
from ..fpga_core.identity.attention_maps import AttentionMap, draw_attention
from ..fpga_core.identity.cast import Cast, CastMember
from ..fpga_core.identity.masked_attention import ActingQueries, identity_activity, identity_attention
from ..fpga_core.identity.regions import Region
from ..fpga_core.patching.unet import cross_attention_layers, unet_of
from ..fpga_core.shapes import Extent
from .generation_lab import WITH_CLONES, WITHOUT_CLONES, controlnet_way, shipped_way, ways_of
from .laboratory import FULL, SMALL, Case, Laboratory, Way, save_pictures
from .scenes import Shot
from .training_lab import read_way

NUM_CASES = 24
FOLDED, CONTROLNET = "RepControlNet folded", "ControlNet form"
WEAKER, STRONGER, EVENNESS, CONTRAST = "weaker face", "stronger face", "weaker / stronger", "faces / elsewhere"


@dataclass(eq=False)
class ActivityRecord:
    """What one identity adds to the first cross attention of a network, in every call of a run.

    Attributes:
        attention: the layer, as the host has it.
        tokens: the identity's tokens, (1, num_tokens, token_dim).
        maps: the activity in each call, (num_queries,): what the identity adds everywhere, relative to the text.
    """

    attention: Any
    tokens: Tensor
    maps: list[Tensor] = field(default_factory=list)
    _queries: Tensor | None = None

    def keep_queries(self, module: nn.Module, inputs: tuple[Tensor], queries: Tensor) -> None:  # noqa: ARG002
        self._queries = queries

    def compare(self, module: nn.Module, inputs: tuple[Tensor], values: Tensor) -> None:  # noqa: ARG002
        """Computes the activity when the layer has projected its text: queries, keys and values, in this order."""
        (text,), queries, to_k = inputs, self._queries, self.attention.to_k
        if queries is None:
            return  # these are the values of the identity
        self._queries = None
        ones, heads = torch.ones(1, 1, queries.shape[1]).to(queries), self.attention.heads
        beside = identity_attention(
            queries, keys=to_k(text)[:, None], values=values[:, None], weights=ones, num_heads=heads
        )
        tokens = self.tokens.to(queries)
        keys, values = to_k(tokens), self.attention.to_v(tokens)
        acting = ActingQueries(ones)
        activity = identity_activity(
            beside, queries, keys=keys[None], values=values[None], acting=acting, num_heads=heads
        )
        self.maps.append(activity[0, 0].cpu())


@contextmanager
def recorded(attention: Any, tokens: Tensor) -> Iterator[ActivityRecord]:  # noqa: ANN401
    """Records the activity of an identity while a network runs on one picture without guidance."""
    record = ActivityRecord(attention, tokens)
    hooks = (
        attention.to_q.register_forward_hook(record.keep_queries),
        attention.to_v.register_forward_hook(record.compare),
    )
    try:
        yield record
    finally:
        for hook in hooks:
            hook.remove()


class AttentionLab:
    """Pictures of two people, in which one of them acts in both places."""

    def __init__(self) -> None:
        self.lab = Laboratory()
        self.cases = self.lab.cases(Shot.DUO, NUM_CASES)

    def activity(self, way: Way, case: Case, person: int) -> AttentionMap:
        """Returns where a person of a case is active in the first layer of a branch: the mean over all steps."""
        assert way.adapter is not None
        identity = case.cast.members[person].identity
        both = case.cast.rasterise_alone(SMALL).amax(dim=0)
        alone = replace(case, cast=Cast((CastMember(identity, Region.from_mask(both)),), SMALL))
        network = unet_of(self.lab.model) if way.control_net is None else way.control_net.control_model
        first = next(iter(cross_attention_layers(network).values()))
        conditioned = self.lab.conditioned(way, alone, self.lab.folded(way))
        with recorded(first, way.adapter.tokens(identity)) as record:
            self.lab.sample(*conditioned, seed=case.number, cfg=1.0)
        grid = grid_of(record.maps[0])
        mean = torch.stack(record.maps).mean(dim=0).reshape(grid.height, grid.width)
        return AttentionMap(case.number, person + 1, identity.name, mean)

    def figures(self, case: Case, drawn: AttentionMap) -> dict[str, float]:
        """Returns the mean activity in each of the two faces, how alike both are, and how much more that is than
        elsewhere."""
        height, width = drawn.activity.shape
        regions = case.cast.rasterise_alone(Extent(width, height))
        elsewhere = 1 - regions.amax(dim=0)
        inside = [float((drawn.activity * region).sum() / region.sum()) for region in regions]
        weaker, stronger = min(inside), max(inside)
        outside = float((drawn.activity * elsewhere).sum() / elsewhere.sum())
        return {
            WEAKER: weaker,
            STRONGER: stronger,
            EVENNESS: weaker / stronger,
            CONTRAST: sum(inside) / len(inside) / outside,
        }


def grid_of(queries: Tensor) -> Extent:
    """Returns the grid of the queries of a square picture, (num_queries,)."""
    side = round(len(queries) ** 0.5)
    return Extent(side, side)


def evaluate_attention(folder: Path) -> str:
    """Measures Fig. 6, for each form of the branch."""
    lab = AttentionLab()
    makers: Mapping[str, Callable[[], Way]] = {
        f"{FOLDED}, shipped": shipped_way,
        f"{FOLDED}, {WITH_CLONES}": lambda: read_way(folder / "stages"),
        f"{FOLDED}, {WITHOUT_CLONES}": lambda: read_way(folder / "without_clones"),
        f"{CONTROLNET}, {WITH_CLONES}": lambda: controlnet_way(folder / "controlnet"),
        f"{CONTROLNET}, {WITHOUT_CLONES}": lambda: controlnet_way(folder / "controlnet_without_clones"),
    }
    rows: dict[str, list[Mapping[str, float]]] = {}
    shown: dict[str, list[Tensor]] = {}
    for name, way in ways_of(makers).items():
        drawn = [(case, lab.activity(way, case, person)) for case in lab.cases for person in range(2)]
        rows[name] = [lab.figures(case, one) for case, one in drawn]
        shown[name] = [draw_attention([one], FULL) for _, one in drawn[:8]]
        print(markdown({name: rows[name]}).splitlines()[-1], flush=True)
    save_pictures(folder / "tables" / "attention.jpg", shown)
    return "\n\n".join([markdown(rows), *differences(rows)])


def differences(rows: Rows) -> list[str]:
    """Says what Clone Face Tuning changes, picture by picture, in each form whose two trainings are there."""
    return [
        f"{form}: {measure} with Clone Face Tuning less without, picture by picture: "
        f"{paired(rows, f'{form}, {WITH_CLONES}', f'{form}, {WITHOUT_CLONES}', measure=measure).signed()}"
        for form in (FOLDED, CONTROLNET)
        for measure in (WEAKER, EVENNESS, CONTRAST)
        if {f"{form}, {WITH_CLONES}", f"{form}, {WITHOUT_CLONES}"} <= rows.keys()
    ]
