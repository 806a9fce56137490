"""What Apply Cast computes for four people: for new ones, one by one or at once, and after a widget has changed.

FaceID-PlusV2 with random weights, for SD1.5 on a CPU or GPU. What an adapter makes of a person is kept with it.
"""

from dataclasses import replace

from _report import arguments, interleaved, ratio_rows, report
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.identity.cast import Cast, CastMember
from fpga.fpga_core.identity.regions import Region
from fpga.fpga_core.patching.cast.encoding import encode_cast, encode_people
from fpga.fpga_core.shapes import Extent
from random_adapters import ARCHITECTURES, faceid_plus, random_identity, read_adapter

NUM_PEOPLE = 4


def main() -> None:
    options = arguments(__doc__)
    architecture = "tiny" if options.tiny else "sd15"
    adapter = read_adapter(faceid_plus(architecture, lora_rank=0))
    clip = {"vision": ARCHITECTURES[architecture].clip_dim}
    people = [random_identity(seed=seed, clip=clip, clip_tokens=257) for seed in range(NUM_PEOPLE)]
    regions = [Region.from_box(Box(place / 4, 0.1, (place + 0.9) / 4, 0.5)) for place in range(NUM_PEOPLE)]
    members = tuple(CastMember(person, region) for person, region in zip(people, regions, strict=True))
    cast = Cast(members, Extent(512, 512))
    encode_cast(adapter, cast, 1.0)
    seconds = interleaved(
        {
            "new, one by one": lambda: [encode_people(replace(adapter), [person]) for person in people],
            "new, all at once": lambda: encode_cast(replace(adapter), cast, 1.0),
            "strength changed": lambda: encode_cast(adapter, cast, 0.5),
        },
        options.rounds,
    )
    report(f"Apply Cast, {NUM_PEOPLE} people, {architecture}", ratio_rows(seconds, "new, one by one"), options.json)


if __name__ == "__main__":
    main()
