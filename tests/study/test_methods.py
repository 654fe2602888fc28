"""Every cell of the grid can be built, and is of the method that it is named for."""

from dataclasses import replace
from pathlib import Path

import pytest
from helpers import engine_runs  # noqa: F401  (registers test_tiny)
from helpers.recipes import on_meta

from arcface_cakd import LOSSES
from arcface_cakd.distiller import Distiller


@pytest.fixture(scope="module")
def grid():
    import grid

    return grid


@pytest.fixture(scope="module")
def methods():
    import methods

    return methods


def built(grid, cell, teacher):
    """The Distiller of a cell, with this network as a teacher, and its config."""
    config = grid.cell_config(cell, Path("faces"), Path("out"))
    student, cakd = on_meta("test_tiny", 16), config.cakd
    if cakd.teacher["centers"] is not None:  # a file that cells.py makes
        cakd = replace(cakd, teacher={**cakd.teacher, "centers": "from_data"})
    return Distiller(student, teacher, cakd, num_classes=10), config


def test_every_method_builds_and_holds_what_its_entry_says(grid, methods):
    convolutional, swin = (on_meta(name, 16) for name in ("test_tiny", "swin_mini"))
    for method, entry in methods.METHODS.items():
        cell = grid.Cell("real", method, 1)
        if entry is None:
            assert grid.cell_config(cell, Path("faces"), Path("out")).cakd is None
            continue
        if "fsp" in method:  # its stages must differ in size between neighbours, as these do not
            continue
        if "stage_1" in method:  # EdgeFace has such a stage, this teacher's map has one alone
            continue
        prompted = method in methods.GROUPS["apt"]
        distiller, config = built(grid, cell, swin if prompted else convolutional)
        assert set(distiller.losses) == {loss["name"] for loss in entry["losses"]}
        assert (distiller.prompts is not None) == prompted
        has_urfm = any(name.startswith("urfm") for name in distiller.losses)
        assert (distiller.urfm is not None) == has_urfm
        assert (distiller.anchoring is not None) == has_urfm
        assert (config.cakd.preservation is None) == (entry.get("preservation") is None)
        weights = {loss.name: loss.weight for loss in config.cakd.losses}
        assert weights == {loss["name"]: loss["weight"] for loss in entry["losses"]}


def test_a_rivals_name_tells_its_loss_and_weight(methods):
    for rival in methods.RIVALS:
        own = [n for n in methods.GROUPS["rivals"] if n.rpartition("_")[0] == rival]
        assert len(own) == 3
        weights = set()
        for name in own:
            (loss,) = methods.METHODS[name]["losses"]
            assert (loss["name"], f"{loss['weight']:g}") == (rival, name.rpartition("_")[2])
            weights.add(loss["weight"])
        assert len(weights) == 3
        assert weights >= {methods.RIVALS[rival][0]}


def test_rivals_that_compare_with_class_centres_get_the_teachers_means(grid, methods):
    means = str(grid.class_means_path(grid.SIZES["cpu"]["real"], Path("faces")))
    for rival, (weight, _) in methods.RIVALS.items():
        cell = grid.Cell("real", f"{rival}_{weight:g}", 1)
        teacher = grid.cell_config(cell, Path("faces"), Path("out")).cakd.teacher
        needed = "centers" in LOSSES.get(rival).needs
        assert teacher["centers"] == (means if needed else None)


def test_what_a_method_sets_is_in_its_config_and_its_cache_is_its_own(grid, methods):
    plain = vars(grid.cell_config(grid.Cell("real", "plain", 1), Path("faces"), Path("out")))
    caches = {}
    for method, settings in methods.SETTINGS.items():
        config = vars(grid.cell_config(grid.Cell("real", method, 1), Path("faces"), Path("out")))
        differing = {k for k in config if config[k] != plain[k]}
        assert differing == {"cakd", *settings} - ({"cakd"} if config["cakd"] is None else set())
        if config["cakd"] is not None:
            caches[method] = config["cakd"].teacher["cache"]
    augmented = {m for m, s in methods.SETTINGS.items() if "augment" in s}
    assert len(augmented) == 4
    cell = grid.Cell("real", next(iter(augmented)), 4)  # views hang on the seed
    of_another_seed = grid.cell_config(cell, Path("faces"), Path("out")).cakd.teacher["cache"]
    assert of_another_seed not in caches.values()
    assert {caches[m] for m in augmented}.isdisjoint({caches[m] for m in caches.keys() - augmented})


def test_a_method_s_plain_student_has_its_settings_or_is_the_best_of_fewer_epochs(methods):
    for what, plain in (
        ("embedding_64", "plain"),
        ("embedding_64_augmented", "plain"),
        ("embedding_64_5_epochs", "plain_5_epochs"),
        (f"{methods.DEFAULT}_8_epochs", "plain_8_epochs"),
        (f"{methods.DEFAULT}_16_epochs", "plain_8_epochs"),
        (f"{methods.DEFAULT}_16_epochs_augmented", "plain_8_epochs"),
        ("embedding_128_32_epochs", "plain_8_epochs"),
    ):
        assert what in methods.METHODS and methods.plain_of(what) == plain


def test_groups_hold_every_method_once(methods):
    listed = [name for group in methods.GROUPS.values() for name in group]
    assert sorted(listed) == sorted([*methods.METHODS, *methods.REFERENCES])


def test_plain_and_distilled_cells_differ_in_the_entry_alone(grid):
    for data in ("real", "made"):
        configs = [
            vars(grid.cell_config(grid.Cell(data, method, 7), Path("faces"), Path("out")))
            for method in ("plain", "embedding_64", "embedding_64_urfm_5_100")
        ]
        for config in configs[1:]:
            assert {k: v for k, v in config.items() if k != "cakd"} == {
                k: v for k, v in configs[0].items() if k != "cakd"
            }
        assert configs[0]["seed"] == 7


@pytest.mark.parametrize("data", ["real_swin", "real_cnn"])
def test_teachers_that_learned_from_edgeface_build_and_teach(grid, data):
    """Without labels, at the width of EdgeFace; their students have a cache of their own."""
    config = grid.teacher_config(grid.SIZES["cpu"][data], Path("faces"))
    assert config.cakd.margin_weight == 0
    assert config.cakd.teacher["weights"] == str(Path("faces/real/edgeface_xs.pt"))
    edgeface = on_meta("edgeface_xs", 512)
    network = on_meta(config.network, config.embedding_size)
    Distiller(network, edgeface, config.cakd, num_classes=None)
    caches = set()
    for name in ("real", data):
        cell = grid.Cell(name, "embedding_64", 1)
        of = grid.cell_config(cell, Path("faces"), Path("out"))
        assert of.cakd.teacher["weights"] == str(Path("faces") / cell.of.teacher["weights"])
        caches.add(of.cakd.teacher["cache"])
    assert len(caches) == 2


@pytest.mark.parametrize("name", ["made_wide", "made_wide_cpu"])
def test_a_wide_teacher_learns_from_faces_of_its_own(name, grid):
    """And what it says of the students' faces is kept apart from what another teacher says."""
    wide, narrow = grid.SIZES["cpu"][name], grid.SIZES["cpu"]["made"]
    assert grid.teacher_config(wide, Path("faces")).rec == str(Path("faces/made_5000"))
    assert grid.teacher_config(narrow, Path("faces")).rec == str(Path("faces/made"))
    configs = [
        grid.cell_config(grid.Cell(data, "embedding_64", 1), Path("faces"), Path("out"))
        for data in ("made", name, f"{name}_confirmation")
    ]
    assert [Path(config.rec).name for config in configs] == ["made", "made", "made_confirmation"]
    assert len({config.cakd.teacher["cache"] for config in configs}) == 3
    assert len({grid.class_means_path(data, Path("faces")) for data in (wide, narrow)}) == 2


RUNS = Path(__file__).parents[2] / "eval" / "study" / "runs"


@pytest.mark.parametrize("data", sorted(p.name for p in RUNS.iterdir() if p.is_dir()))
def test_every_kept_cell_is_of_the_grid_and_makes_a_table(data, grid, methods):
    """With the methods of today: one that was taken out or renamed leaves cells that do not fit."""
    from comparing import Study
    from records import records

    found = records(RUNS, data)
    for cell in found:
        assert cell.method in methods.METHODS or cell.method in methods.REFERENCES, cell
    of = grid.SIZES["cpu"][data]
    sets = of.choose or of.report
    if any(all(name in record["sets"] for name in sets) for record in found.values()):
        assert "teacher" in Study(RUNS, [data], sets, None, draws=1).methods
    else:
        assert not of.choose  # a set for reporting, which is opened when all cells are done


def test_two_wide_teachers_are_kept_apart(grid):
    both = [grid.SIZES["cpu"][name] for name in ("made_wide", "made_wide_cpu")]
    assert len({grid.teacher_config(data, Path("faces")).output for data in both}) == 2
    assert len({grid.class_means_path(data, Path("faces")) for data in both}) == 2


@pytest.mark.parametrize("teacher", ["swin_t", "swin_s"])
def test_the_gpu_grid_builds(grid, teacher):
    """Every network, config and Distiller of ``--size gpu``; nothing is computed."""
    cells = [c for c in grid.SIZES["gpu"] if f"_{teacher}_" in c]
    assert {c.rsplit("_", 1)[1] for c in cells} == {"mbf", "r18"}
    assert {c.split(f"_{teacher}_")[0] for c in cells} == {"made_5000", "own"}
    network = on_meta(teacher, 512)
    for data in cells:
        found = grid.SIZES["gpu"][data]
        assert grid.teacher_config(found, Path("faces")).network == teacher
        assert found.choose and set(found.choose).isdisjoint(found.report)
        student = on_meta(found.student["network"], 512)
        for method in ("plain", "embedding_64", "rkd_6.7", "embedding_64_urfm_5_100"):
            cell = grid.Cell(data, method, 1, "gpu").checked()
            config = grid.cell_config(cell, Path("faces"), Path("out"))
            assert (config.bf16, config.network) == (True, found.student["network"])
            if config.cakd is not None:
                distiller = Distiller(student, network, config.cakd, num_classes=5000)
                assert set(distiller.losses) == {loss.name for loss in config.cakd.losses}
