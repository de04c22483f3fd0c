"""Every method and task under every fault of `faults.py`: a sentence at most, and the same end when it is run again."""

import pytest
from command import ROOT
from faults import COMMANDS, ELSEWHERE, Place, fill_disk, flip_bytes, forbid_writing, kill

TRAINED = [name for name in COMMANDS if name != "prepare"]


def test_every_method_and_task_is_put_through_faults():
    files = [*(ROOT / "conf/method").glob("[!_]*.yaml"), *(ROOT / "conf/task").glob("*.yaml")]
    assert {file.stem for file in files} == ELSEWHERE | set(COMMANDS) - {"sweep"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a command makes when it is left alone, by its name."""
    made = {}

    def run(name):
        if name not in made:
            place = Place(tmp_path_factory.mktemp(name), COMMANDS[name])
            ended = place.run()
            assert ended.code == 0, ended.printed
            assert not place.close()
            made[name] = ended.made
        return made[name]

    return run


@pytest.fixture
def place(tmp_path, request):
    place = Place(tmp_path, COMMANDS[request.getfixturevalue("name")])
    yield place
    assert not place.close()


def is_sentence(ended, part):
    return ended.code == 1 and "Traceback" not in ended.printed and part in ended.printed


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("name", COMMANDS)
class TestFaults:
    def test_a_kill_changes_nothing(self, place, name, undisturbed):
        assert kill(place, 12.0) == ""
        ended = place.run()
        assert (ended.code, ended.made) == (0, undisturbed(name)), ended.printed

    @pytest.mark.parametrize("which", ["cache", "outputs"])
    def test_a_full_disk_is_a_sentence(self, place, name, which, undisturbed):
        if name == "sweep" and which == "outputs":
            pytest.skip("a sweep writes into multirun")
        size = "12k" if name == "prepare" else {"cache": "100k", "outputs": "40k"}[which]  # smaller than the files
        ended = fill_disk(place, which, size)
        assert is_sentence(ended, f"or set ALIGNLAB_{which.upper()} to a larger disk"), ended.printed

    @pytest.mark.parametrize("which", ["cache", "outputs"])
    def test_a_read_only_disk_is_a_sentence(self, place, name, which):
        if name == "sweep" and which == "outputs":
            pytest.skip("a sweep writes into multirun")
        assert is_sentence(ended := forbid_writing(place, which), f"set ALIGNLAB_{which.upper()}"), ended.printed

    def test_flipped_bytes_are_found_and_made_again(self, place, name, undisturbed):
        first = place.run()
        assert (first.code, first.made) == (0, undisturbed(name)), first.printed
        ended = flip_bytes(place)
        assert (ended.code, ended.made) == (0, first.made), ended.printed
        assert "it is made again" in ended.printed
