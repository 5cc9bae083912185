"""Studies run in this process, with all that their programs share."""

import pytest
from matplotlib.figure import Figure

from experiments.frame.study import read_results, run


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are made but not drawn, a third of a small run's time: for what is no
    question of figures, where another test of the same study draws them."""

    def stand_in(figure, file, **options):
        file.write(b"not drawn")

    monkeypatch.setattr(Figure, "savefig", stand_in)


@pytest.fixture
def study_run(tmp_path):
    """``(study, words) -> Results`` of a run to its end; its exit code must be 0."""

    def done(study, words, *, code=0):
        given = words.split() if isinstance(words, str) else list(words)
        assert run(study, [*given, "--results", str(tmp_path)]) == code
        folder = max((tmp_path / study.name).iterdir())
        for name in ("tables.md", "tables.tex", "index.html"):
            assert (folder / name).stat().st_size > 200
        assert list((folder / "tables").glob("*.csv"))
        return read_results(folder)

    return done
