"""Memories from and to elsewhere."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from math import inf, nan
from pathlib import Path
from random import Random

import pytest
from crewai.memory.storage.lancedb_storage import LanceDBStorage
from typer.testing import CliRunner

from fastcrew_async.cli import app
from fastcrew_async.memory.store import MemoryStore
from fastcrew_async.memory.transfer import export_jsonl, import_jsonl, import_lancedb
from tests.memory.records import START, record, unit

RECORDS = [
    record(n, embedding=unit(n), scope=f"/s{n % 2}", categories=["c"], metadata={"n": n}, source="ann", private=n == 1)
    for n in range(5)
] + [record(5)]


def test_a_lancedb_folder_is_copied_once(tmp_path: Path) -> None:
    LanceDBStorage(tmp_path / "lance", compact_every=0).save(RECORDS)
    store = MemoryStore(tmp_path / "m")
    store.save([RECORDS[3]])
    assert import_lancedb(store, tmp_path / "lance") == 5
    assert import_lancedb(store, tmp_path / "lance") == 0
    assert sorted(store.list_records(), key=lambda found: found.id) == [
        one.model_copy(update={"embedding": pytest.approx(one.embedding, abs=1e-6) if one.embedding else None})
        for one in RECORDS
    ]
    with pytest.raises(FileNotFoundError, match="holds no LanceDB table 'memories'"):
        import_lancedb(store, tmp_path)
    store.close()


def test_json_lines_go_out_and_come_back(tmp_path: Path) -> None:
    store, copy = MemoryStore(tmp_path / "a"), MemoryStore(tmp_path / "b")
    store.save(RECORDS)
    file = io.StringIO()
    assert export_jsonl(store, file) == 6
    assert import_jsonl(copy, io.StringIO(file.getvalue())) == 6
    assert import_jsonl(copy, io.StringIO(file.getvalue())) == 0
    assert copy.list_records() == store.list_records()
    with pytest.raises(ValueError, match="line 2 is not a record"):
        import_jsonl(copy, io.StringIO('\n{"scope": "/"}\n'))
    store.close()
    copy.close()


def test_metadata_are_kept_as_they_are(store: MemoryStore, tmp_path: Path) -> None:
    source = record(0, metadata={"most": inf, "deep": [{"least": -inf}], "none": nan, "half": "\ud800", "big": 10**30})
    store.save([source])
    file = io.StringIO()
    export_jsonl(store, file)
    copy = MemoryStore(tmp_path / "copy")
    import_jsonl(copy, io.StringIO(file.getvalue()))
    assert repr(copy.list_records()) == repr([source])
    copy.close()


class Disturbed(io.StringIO):
    """A file that lets others act at each line that is written."""

    def __init__(self, act: Callable[[int], object]) -> None:
        super().__init__()
        self.act = act
        self.count = 0

    def write(self, text: str) -> int:
        self.count += 1
        self.act(self.count)
        return super().write(text)

    def records(self) -> Counter[str]:
        lines = (json.loads(line) for line in self.getvalue().splitlines())
        return Counter(json.dumps({**line, "last_accessed": ""}) for line in lines)


def test_deletions_meanwhile_take_nothing_else_from_an_export(store: MemoryStore) -> None:
    store.save([record(n) for n in range(3000)])
    file = Disturbed(lambda line: line == 1 and store.delete(record_ids=[f"r{n}" for n in range(2000, 3000)]))
    export_jsonl(store, file)
    ids = [json.loads(line)["id"] for line in file.getvalue().splitlines()]
    assert ids == [f"r{n}" for n in range(2999, -1, -1)]


@pytest.mark.parametrize("times", [1, 3, 1000])
@pytest.mark.parametrize("vectors", [True, False])
def test_an_export_writes_what_stays_once(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, times: int, vectors: bool
) -> None:
    monkeypatch.setattr("fastcrew_async.memory.transfer._BATCH", 10)
    choose = Random(f"{times} {vectors}")
    saved = [  # many of one time, ids that come twice, records that are the same in all
        record(
            choose.randrange(150),
            content=f"thought {choose.randrange(2)}",
            created_at=START + timedelta(minutes=choose.randrange(times)),
            embedding=unit(1, 2) if choose.randrange(2) else None,
        )
        for _ in range(200)
    ]
    store.save(saved)
    still = Disturbed(lambda line: None)
    assert export_jsonl(store, still, vectors=vectors) == 200
    staying = Counter({line: n for line, n in still.records().items() if int(json.loads(line)["id"][1:]) < 80})

    def disturb(line: int) -> None:
        store.delete(record_ids=[f"r{choose.randrange(80, 150)}" for _ in range(choose.randrange(1, 3))])
        store.touch_records([f"r{choose.randrange(150)}"])
        if choose.randrange(4) == 0:
            number = choose.randrange(1000)
            store.save([record(1000 + number, created_at=START + timedelta(minutes=choose.randrange(times + 1)))])
        if line == 1:
            newest = [one.id for one in store.list_records(limit=60)]
            store.delete(record_ids=[name for name in newest if int(name[1:]) >= 80])

    file = Disturbed(disturb)
    export_jsonl(store, file, vectors=vectors)
    found = Counter({line: n for line, n in file.records().items() if int(json.loads(line)["id"][1:]) < 80})
    assert found == staying
    assert [one["created_at"] for one in map(json.loads, file.getvalue().splitlines())] == sorted(
        (json.loads(line)["created_at"] for line in file.getvalue().splitlines()), reverse=True
    )


def test_an_id_that_comes_twice_is_kept_twice(store: MemoryStore, tmp_path: Path) -> None:
    source = [record(n % 1100) for n in range(2200)]  # the second of an id lies in another batch than the first
    source += [record(1100), record(1100)]
    source.append(record(2000))
    store.save([record(2000)])
    lines = "".join(f"{one.model_dump_json()}\n" for one in source)
    assert import_jsonl(store, io.StringIO(lines)) == 2202
    assert import_jsonl(store, io.StringIO(lines)) == 0
    assert store.count() == 2203

    LanceDBStorage(tmp_path / "lance", compact_every=0).save(source)
    copy = MemoryStore(tmp_path / "copy")
    copy.save([record(2000)])
    assert import_lancedb(copy, tmp_path / "lance") == 2202
    assert import_lancedb(copy, tmp_path / "lance") == 0
    copy.close()


def test_the_commands(tmp_path: Path) -> None:
    run = CliRunner().invoke
    folder = str(tmp_path / "m")
    store = MemoryStore(folder)
    store.save(RECORDS)
    store.close()
    assert "r3" in run(app, ["memory", "search", "thought 3", "--path", folder, "--limit", "1"]).output
    assert "records        6" in run(app, ["memory", "stats", "--path", folder]).output
    assert run(app, ["memory", "compact", "--path", folder]).output == "0 files removed\n"
    lines = run(app, ["memory", "export", "--path", folder, "--scope", "/s1"]).output
    assert len(lines.splitlines()) == 2
    (tmp_path / "lines").write_text(lines)
    other = str(tmp_path / "other")
    assert "2 records imported" in run(app, ["memory", "import", str(tmp_path / "lines"), "--path", other]).output
    assert run(app, ["memory", "import", str(tmp_path / "none"), "--path", other]).exit_code == 2
    assert run(app, ["memory", "stats", "--path", str(tmp_path / "none")]).exit_code == 2
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "records.db").write_text("no database, whatever its name says")
    for command in (["stats"], ["export"], ["compact"], ["import", str(tmp_path / "lines")]):
        refused = run(app, ["memory", *command, "--path", str(tmp_path / "damaged")])
        assert refused.exit_code == 2
        assert "--path" in refused.output
