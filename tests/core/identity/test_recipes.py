from fpga.fpga_core.identity.recipes import RECIPES, AdapterKind


def test_every_kind_has_a_recipe():
    assert RECIPES.keys() == set(AdapterKind)


def test_only_what_reads_no_embedding_or_names_its_own_recogniser_leaves_it_open():
    open_kinds = {kind for kind, recipe in RECIPES.items() if recipe.recogniser is None}
    assert open_kinds == {AdapterKind.PLUS_FACE, AdapterKind.FPGA}
