"""How programs are handed to supervisord, and how its orphans are told from foreign processes."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from supervisor.options import ServerOptions

from core.infrastructure.deployment import belongings
from core.infrastructure.deployment.layout import Layout, create, layout_of
from core.infrastructure.deployment.orphans import end_orphans, find_orphans, find_supervisor
from core.infrastructure.deployment.programs import Program, Stage, command
from core.infrastructure.deployment.readiness import probe
from core.infrastructure.deployment.supervision import render, write_config
from core.infrastructure.deployment.wish import Wish, programs_of

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = layout_of(tmp_path / "my data 100%")
    create(made)
    return made


@pytest.fixture
def programs(layout: Layout) -> list[Program]:
    tree = belongings.ensure_settings(layout, 18_000)
    return programs_of(layout, tree, Wish(port_base=18_000, demo=True))


@pytest.fixture
def options(layout: Layout, programs: list[Program], monkeypatch: pytest.MonkeyPatch) -> ServerOptions:
    monkeypatch.chdir(layout.root)
    write_config(layout, programs)
    parsed = ServerOptions()
    parsed.realize(["-c", str(layout.supervisor_config)])
    return parsed


def test_supervisord_reads_back_every_program_as_it_was_meant(
    options: ServerOptions, programs: list[Program], layout: Layout
) -> None:
    parsed = {
        config.name: config for group in options.process_group_configs for config in group.process_configs
    }
    assert set(parsed) == {program.name for program in programs}
    for program in programs:
        assert shlex.split(parsed[program.name].command) == command(program)
        assert parsed[program.name].environment["TICKGATE_SETTINGS_FILE"] == str(program.settings_file)
        assert layout.root / parsed[program.name].stdout_logfile == layout.log(program.name)


def test_engines_stop_last_and_connectors_first(options: ServerOptions) -> None:
    order = [group.name for group in sorted(options.process_group_configs, key=lambda group: group.priority)]
    assert order == ["engines", "services", "connectors"]


def test_no_secret_stands_in_the_configuration(layout: Layout, programs: list[Program]) -> None:
    text = render(layout, programs)
    tree = belongings.read_tree(layout.settings_file)
    for section in ("postgres", "redis", "clickhouse"):
        assert tree[section]["password"] not in text
    assert layout.supervisor_config.exists() is False
    write_config(layout, programs)
    assert layout.supervisor_config.stat().st_mode & 0o077 == 0


def test_a_program_that_listens_nowhere_is_not_ready(programs: list[Program]) -> None:
    assert not any(probe(program).ready for program in programs)


def test_what_a_killed_supervisor_left_is_found_and_ended(layout: Layout) -> None:
    environment = {
        **os.environ,
        "SUPERVISOR_SERVER_URL": f"unix://{layout.supervisor_socket}",
        "SUPERVISOR_PROCESS_NAME": "gateway",
        "SUPERVISOR_GROUP_NAME": "services",
    }
    with subprocess.Popen(SLEEP, env=environment) as left:
        orphans = find_orphans(layout)
        assert [(orphan.name, orphan.stage, orphan.process.pid) for orphan in orphans] == [
            ("gateway", Stage.SERVICES, left.pid)
        ]
        end_orphans(orphans)
        assert left.wait(5) != 0
    assert find_orphans(layout) == []


def test_a_shell_that_merely_names_our_directory_is_left_alone(layout: Layout) -> None:
    environment = {**os.environ, "TICKGATE_DATA_DIR": str(layout.root)}
    with subprocess.Popen(
        [*SLEEP, str(layout.supervisor_config)], env=environment, cwd=layout.root
    ) as foreign:
        try:
            assert find_orphans(layout) == []
            assert find_supervisor(layout) is None
        finally:
            foreign.kill()


def test_a_foreign_server_of_the_same_name_is_left_alone(layout: Layout, tmp_path: Path) -> None:
    binary = tmp_path / "postgres"
    shutil.copy("/bin/sleep", binary)
    with subprocess.Popen([str(binary), "60"], cwd=tmp_path) as foreign:
        try:
            assert find_orphans(layout) == []
        finally:
            foreign.kill()
