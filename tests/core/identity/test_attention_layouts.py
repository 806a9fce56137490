"""The layers that the numbers in adapter files mean (tests/slow compares them with diffusers' own list)."""

from fpga.fpga_core.block_slots import BlockSlot
from fpga.fpga_core.identity.attention_layouts import SD15, SDXL


def test_the_published_numbers_of_sd15():
    """1, 3, ... 11 are input blocks 1, 2, 4, 5, 7, 8; 13 to 29 output blocks 3 to 11; 31 is the middle block."""
    numbered = dict(zip(range(1, 33, 2), SD15.widths, strict=True))
    inputs = {1: 1, 3: 2, 5: 4, 7: 5, 9: 7, 11: 8}
    assert {number: numbered[number] for number in inputs} == {n: BlockSlot("input", b, 0) for n, b in inputs.items()}
    assert [numbered[n] for n in range(13, 31, 2)] == [BlockSlot("output", b, 0) for b in range(3, 12)]
    assert numbered[31] == BlockSlot("middle", 0, 0)


def test_sdxl_has_seventy_transformer_blocks():
    depths = {}
    for slot in SDXL.widths:
        depths[slot[:2]] = depths.get(slot[:2], 0) + 1
    inputs = {("input", 4): 2, ("input", 5): 2, ("input", 7): 10, ("input", 8): 10}
    outputs = {("output", b): 10 for b in (0, 1, 2)} | {("output", b): 2 for b in (3, 4, 5)}
    assert depths == inputs | outputs | {("middle", 0): 10}
    assert len(SDXL.widths) == 70
