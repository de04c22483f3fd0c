"""The hash of the code that decides a stage's weights."""

import shutil

import pytest

from alignlab.runtime import known_sources, source_hash


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """Give a function that changes a module in a copy of the package, and returns the hash of a method there."""
    root = tmp_path / "alignlab"
    shutil.copytree(source_hash.ROOT, root, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(source_hash, "ROOT", root)
    monkeypatch.setattr(source_hash, "SETTINGS", root / "config")

    def hash_after(module: str, old: str = "", new: str = "", method: str = "dpo") -> str:
        file = root.joinpath(*module.split(".")[1:]).with_suffix(".py")
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new, 1) if old else text + new, encoding="utf-8")
        return source_hash.hash_with_imports(f"alignlab.methods.{method}")

    return hash_after


def modules():
    """Name every module of the package."""
    for file in sorted(source_hash.ROOT.rglob("*.py")):
        yield ".".join(file.relative_to(source_hash.ROOT.parent).with_suffix("").parts)


def test_a_docstring_or_a_comment_of_any_module_changes_no_hash(tmp_path):
    """Every module of the package, with other docstrings and a comment, has the syntax that it had."""
    for module in modules():
        file = source_hash.ROOT.parent.joinpath(*module.split(".")).with_suffix(".py")
        text = file.read_text(encoding="utf-8")
        changed = tmp_path / "changed.py"
        changed.write_text(text.replace('"""', '"""Other words. ', 1) + "\n# a comment\n", encoding="utf-8")
        plain = tmp_path / "plain.py"
        plain.write_text(text, encoding="utf-8")
        assert source_hash.read_source(changed).syntax == source_hash.read_source(plain).syntax, module


def test_a_docstring_within_a_function_or_a_class_changes_no_hash(copy):
    before = copy("alignlab.losses")
    assert copy("alignlab.losses", '    """', '    """Other words. ') == before
    assert copy("alignlab.config.sweep", '    """', '    """Other words. ') == before


def test_a_changed_statement_in_a_loss_changes_the_hash(copy):
    before = copy("alignlab.losses")
    after = copy("alignlab.losses", "def preference(", "def preference_(")
    assert after != before


def test_a_field_of_a_settings_class_changes_no_hash_and_its_arithmetic_does(copy):
    before = copy("alignlab.config.method")
    assert copy("alignlab.config.method", "    weight_decay: NotNegative", "    weight_decay: Positive") == before
    assert copy("alignlab.methods.dpo", "    beta: Positive", "    beta: NotNegative") == before
    assert (
        copy("alignlab.config.method", "self.steps(rows) * min(self.batch_size, rows)", "self.steps(rows) * 2")
        != before
    )


def test_code_that_measures_changes_no_hash(copy):
    before = copy("alignlab.evaluation.statistics", method="ppo")
    assert copy("alignlab.evaluation.statistics", new="\nMORE = 1\n", method="ppo") == before
    assert copy("alignlab.training.gates", new="\nMORE = 1\n", method="ppo") == before  # they stop a run at most
    assert copy("alignlab.training.ppo.experience", new="\nMORE = 1\n", method="ppo") != before


def test_the_modules_of_a_method_are_those_it_imports():
    assert source_hash.hash_with_imports("alignlab.methods.sft") != source_hash.hash_with_imports(
        "alignlab.methods.dpo"
    )
    assert {"alignlab.training.trainer", "alignlab.models.load", "alignlab.chat"} <= set(
        source_hash.imported("alignlab.methods.sft")
    )


def test_what_was_parsed_is_kept_and_a_damaged_file_of_it_is_made_anew(tmp_path, monkeypatch):
    place, parsed = tmp_path / "entries.json", []
    source = known_sources.Source("a hash", [known_sources.ImportStatement(1, "losses", ["kl_of"])])

    def parse():
        parsed.append(1)
        return source

    def read():
        known_sources.entries.cache_clear()
        assert known_sources.get("content", parse) == source
        known_sources.save()
        return len(parsed)

    monkeypatch.setattr(known_sources, "place", lambda: place)
    assert [read(), read()] == [1, 1]
    place.write_text('{"content": 3}')
    assert [read(), read()] == [2, 2]
    known_sources.entries.cache_clear()
