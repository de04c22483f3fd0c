"""The store: what is acknowledged is there, once; groups, failures, deletion, retention; SQLite and PostgreSQL."""

import asyncio
import time
from concurrent.futures import wait
from threading import Event
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from postgres import postgres
from sqlalchemy.exc import OperationalError

from alignlab.errors import Failure
from alignlab.serving.app import keep_retention
from alignlab.serving.problems import Problem
from alignlab.serving.store import records
from alignlab.serving.store.records import Answer, User, add_answer
from alignlab.serving.store.store import Store
from alignlab.serving.store.tables import answers, feedback, metadata

ANN, BEN = User("ann", "use"), User("ben", "use")


def answer(name, user="ann"):
    return Answer(name, user, "tiny", "v1", [{"role": "user", "content": "how"}], "so", "stop", {"seed": 1})


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.runs)])
def place(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    if request.param == "sqlite":
        yield str(folder / "deep" / "feedback.db")
        return
    with postgres(folder) as url:
        yield url


@pytest.fixture
def store(place):
    opened = Store(place)
    opened.writer.submit(lambda c: [c.execute(table.delete()) for table in metadata.tables.values()]).result()
    yield opened
    opened.close()


def give(store, user, subject, value, key=None):
    return store.writer.submit(
        lambda connection: records.give_feedback(connection, user, "answer", subject, value, key)
    )


def count(store, table):
    return store.read_now(lambda c: c.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def test_records_are_committed_in_groups_and_each_is_there_once(store):
    sizes = []
    store.writer.observe = lambda _, size: sizes.append(size)
    begin = Event()
    store.writer.submit(lambda _: begin.wait(60))
    futures = [store.writer.submit(lambda c, n=n: add_answer(c, answer(f"a{n}"), True)) for n in range(300)]
    futures += [give(store, ANN, f"a{n}", {"thumb": "up"}) for n in range(300)]
    begin.set()
    assert all(future.exception() is None for future in futures)
    assert (count(store, answers), count(store, feedback)) == (300, 300)
    assert len(sizes) <= 6
    assert sum(sizes) == 601


def test_a_failing_record_fails_alone(store):
    begin = Event()
    store.writer.submit(lambda _: begin.wait(60))
    futures = [store.writer.submit(lambda c, n=n: add_answer(c, answer(n), True)) for n in ("x", "y", "x", "z")]
    refused = give(store, ANN, "nothing", {"thumb": "up"})
    begin.set()
    wait([*futures, refused])
    assert [future.exception() is None for future in futures] == [True, True, False, True]
    assert isinstance(refused.exception(), Problem)
    assert count(store, answers) == 3


def test_the_same_key_writes_once_and_withdrawing_forgets_its_value(store):
    store.writer.submit(lambda c: add_answer(c, answer("a"), False)).result()
    first = give(store, ANN, "a", {"comment": "secret"}, "k").result()
    assert give(store, ANN, "a", {"comment": "secret"}, "k").result() == first
    assert give(store, ANN, "a", {"comment": "other"}, "k").exception().status == 409
    assert give(store, BEN, "a", {"comment": "other"}).exception().status == 404
    store.writer.submit(lambda c: records.withdraw(c, ANN, first["id"])).result()
    for table in metadata.tables.values():
        assert "secret" not in str(store.read_now(lambda c, t=table: c.execute(t.select()).all()))
    again = give(store, ANN, "a", {"thumb": "up"}).result()
    assert (again["id"], again["withdrawn"]) == (first["id"], None)


def test_a_user_and_what_is_old_are_deleted(store):
    for name, user in (("a", "ann"), ("b", "ben")):
        store.writer.submit(lambda c, n=name, u=user: add_answer(c, answer(n, u), True)).result()
        give(store, User(user, "use"), name, {"rating": 3}, "k").result()
    gone = store.writer.submit(lambda c: records.delete_user(c, "ann")).result()
    assert gone == {"feedback": 1, "answers": 1, "items": 0, "idempotency": 1, "keys": 0}
    assert (count(store, answers), count(store, feedback)) == (1, 1)
    assert store.writer.submit(lambda c: records.expire(c, time.time() - 60)).result() == 0
    assert store.writer.submit(lambda c: records.expire(c, time.time() + 60)).result() == 3
    assert (count(store, answers), count(store, feedback)) == (0, 0)


def test_the_migrations_make_the_tables_that_the_code_uses(store):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_sqlite_syncs_each_commit(tmp_path):
    store = Store(str(tmp_path / "feedback.db"))
    read = store.read_now(
        lambda c: [c.execute(sa.text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous")]
    )
    assert read == ["wal", 2]
    store.close()


def test_a_place_that_cannot_be_opened_is_told_in_a_sentence(tmp_path):
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(Failure, match=r"task.store: .*folder.db cannot be opened"):
        Store(str(tmp_path / "folder.db"))
    with pytest.raises(Failure, match=r"task.store: .*cannot be opened") as raised:
        Store("postgresql://ann:secret@127.0.0.1:9/none")
    assert "secret" not in str(raised.value)


def test_a_failure_of_the_store_does_not_end_retention(monkeypatch):
    calls = []

    async def write(_):
        calls.append(1)
        raise OperationalError("", {}, Exception()) if len(calls) == 1 else KeyboardInterrupt

    async def no_wait(_):
        pass

    monkeypatch.setattr(asyncio, "sleep", no_wait)
    service = SimpleNamespace(settings=SimpleNamespace(retention_days=1), store=SimpleNamespace(write=write))
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(keep_retention(service))
    assert len(calls) == 2
