"""The memory of a step, side by side with that of its parts."""

from arcface_cakd.bench import Report, step_memory
from arcface_cakd.bench.faces import distilling_config, make_faces, random_weights, train_config
from arcface_cakd.bench.step import FLOORS, METHODS


def test_every_side_is_measured_and_held_against_its_parts(monkeypatch):
    # Each process's peak, by what it was told to do: round numbers that can be checked by hand.
    told = []

    def peak_of(function, *args):
        told.append((function, args))
        if function is step_memory.take_part:
            return {"teacher's forward": 50.0}.get(args[0], 300.0)
        return 100.0 if args[0].cakd is None else 200.0

    monkeypatch.setattr(step_memory, "peak_of", peak_of)
    monkeypatch.setattr(step_memory, "make_faces", lambda folder, images: folder)
    monkeypatch.setattr(step_memory, "random_weights", lambda folder, network: folder / "t.pt")
    report = Report("", {})
    step_memory.measure_memory(report, "r10_narrow", "swin_mini", batch_size=2, rounds=2)
    assert [function for function, _ in told[:3]] == [step_memory.fill_cache] * 3
    assert {f"{name}, MiB at most" for name in FLOORS} < set(report.amounts)
    assert report.amounts["plain step, MiB at most"] == 100.0
    ratios = {name: ratio.rounds for name, ratio in report.ratios.items()}
    assert ratios["URFM / (plain step + teacher's forward)"] == (200 / 150,) * 2
    prompted = "URFM and prompts / (plain step + prompted forward and backward)"
    assert ratios[prompted] == (200 / 400,) * 2
    assert ratios["URFM and prompts, from cache / plain step"] == (2.0, 2.0)


def test_what_the_processes_do(tmp_path, monkeypatch):
    monkeypatch.setattr(step_memory, "keep_freed_memory", lambda: None)  # of this process
    faces = make_faces(tmp_path, 2)
    steps = []
    monkeypatch.setattr(step_memory.Steps, "without", lambda self: steps.append("without"))

    def with_cache(self):
        assert all(p.is_meta for p in self.run.model.teacher.parameters())  # as in a run
        steps.append("with")

    monkeypatch.setattr(step_memory.Steps, "with_cache", with_cache)
    config = train_config(faces, "r10_narrow", 2)
    step_memory.take_steps(config, False)
    weights = random_weights(tmp_path, "swin_mini")
    entry = METHODS["embedding"]
    config = distilling_config(faces, "r10_narrow", 2, "swin_mini", weights, **entry)
    step_memory.take_steps(config, True)
    assert steps == ["without", "without", "with", "with"]
    for part in step_memory.PARTS:
        step_memory.take_part(part, "swin_mini", weights, 1)
