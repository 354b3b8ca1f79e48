"""Bring a local deployment up: engines, schema, services, connectors, each as early as it can be."""

import asyncio
import contextlib
import hashlib
import subprocess
import threading
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from core.errors.exceptions import TickgateError, Unavailable
from core.infrastructure.config_manager import FILE_VARIABLE, load_settings, write_settings_file
from core.infrastructure.deployment import belongings, ports, shutdown, supervision
from core.infrastructure.deployment.demo_desk import provision_demo_desk
from core.infrastructure.deployment.layout import Layout, create
from core.infrastructure.deployment.log_files import gist_of
from core.infrastructure.deployment.programs import Probe, Program, Stage
from core.infrastructure.deployment.readiness import Finding, probe
from core.infrastructure.deployment.supervision import ProcessState, Supervisor
from core.infrastructure.deployment.wish import DEMO_SOURCE, Wish, programs_of, remember, terminals_of
from core.infrastructure.import_manager import resolve
from core.infrastructure.migrator import migrate, stores_in_use
from core.infrastructure.provisioning import NewClient, NewSource, provision
from core.infrastructure.schemas import steps
from core.model.principals import Scope
from core.settings import Secret, Settings

HEALTHY_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.05
STARTS_MAX: Final = 4
"""A program that was started this often and is not ready will not become so by waiting."""
TAIL_LINES: Final = 20
SUPERVISOR_TIMEOUT_S: Final = 15.0
DEMO_TENANT: Final = "demo"
DEMO_SCOPES: Final = tuple(Scope)


class Progress(Protocol):
    """Where the start is told about."""

    def begun(self, text: str) -> None:
        """Say what is being done now."""

    def done(self, text: str) -> None:
        """Say what has been done."""


class NotHealthy(Unavailable):
    """A program did not become ready. log: its log file; tail: the end of it."""

    def __init__(self, public: str, *, log: Path | None = None) -> None:
        super().__init__(public, code="NOT_HEALTHY")
        self.log = log
        self.tail = gist_of(log, TAIL_LINES) if log else []


class Start:
    """One start, from nothing running to everything healthy."""

    def __init__(self, layout: Layout, wish: Wish, progress: Progress) -> None:
        self._layout = layout
        self._wish = wish
        self._progress = progress
        self._rpc = Supervisor(layout.supervisor_socket)
        self._starts: dict[str, set[int]] = {}
        self._deadline = time.monotonic() + HEALTHY_TIMEOUT_S
        self.process: subprocess.Popen[bytes] | None = None
        self.programs: list[Program] = []

    def run(self) -> None:
        """Raises: TickgateError, with nothing left running."""
        try:
            self._run()
        except BaseException:
            # Whatever went wrong, the next start takes nothing for granted.
            self._layout.prepared_file.unlink(missing_ok=True)
            shutdown.stop_quietly(self._layout)
            raise

    def _run(self) -> None:
        layout, wish = self._layout, self._wish
        shutdown.stop(layout, self._progress.done)
        create(layout)
        tree, tokens = self._belongings()
        self.programs = programs_of(layout, tree, wish)
        ports.require_free(
            {program.name: program.port for program in self.programs if program.port is not None}
        )
        remember(layout, wish)
        supervision.write_config(layout, self.programs)
        for program in self._of(Stage.CONNECTORS):
            if program.spool:
                (program.spool / "status.json").unlink(missing_ok=True)
        self._launch(tree)
        self._bring_up(tokens)

    def _belongings(self) -> tuple[belongings.Tree, dict[str, str]]:
        tree = belongings.ensure_settings(self._layout, self._wish.port_base)
        belongings.ensure_signing_key(self._layout)
        belongings.ensure_audit_key(self._layout)
        belongings.ensure_order_key(self._layout)
        belongings.ensure_credentials(self._layout)
        tokens = {
            source: belongings.ensure_connector_settings(self._layout, tree, source, terminal)
            for source, terminal in terminals_of(self._wish).items()
        }
        return tree, tokens

    def _launch(self, tree: belongings.Tree) -> None:
        self._progress.begun("starting the engines")
        connectors = [belongings.read_tree(program.settings_file) for program in self._of(Stage.CONNECTORS)]
        owned = belongings.owned_variables(tree, *connectors)
        environment = belongings.child_environment(self._layout, owned)
        load_settings(environment)
        self.process = supervision.launch(self._layout, environment)
        self._await_supervisor()

    def _await_supervisor(self) -> None:
        deadline = time.monotonic() + SUPERVISOR_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                self._rpc.pid()
            except Unavailable:
                assert self.process is not None
                if self.process.poll() is not None:
                    break
                time.sleep(POLL_S / 2)
            else:
                return
        raise NotHealthy("the supervisor did not start", log=self._layout.log("supervisord.out"))

    def _bring_up(self, tokens: Mapping[str, str]) -> None:
        stores = stores_in_use(load_settings({FILE_VARIABLE: str(self._layout.settings_file)}))
        mark = _preparation_mark(stores, tokens)
        if _prepared(self._layout, mark):
            # Nothing new for the stores: services load while the engines do, and wait for them by themselves.
            self._start_rest()
            self._await_ready(self._of(Stage.ENGINES))
        else:
            warm = threading.Thread(target=_warm_up, args=(stores,), daemon=True)
            warm.start()
            self._await_ready(self._of(Stage.ENGINES))
            warm.join()
            self._prepare_stores(tokens)
            write_settings_file(self._layout.prepared_file, _prepared_record(self._layout, mark))
            self._start_rest()
        self._progress.begun("starting the services")
        self._await_ready(self._of(Stage.SERVICES, Stage.CONNECTORS))

    def _start_rest(self) -> None:
        self._rpc.start(Stage.SERVICES)
        if self._of(Stage.CONNECTORS):
            self._rpc.start(Stage.CONNECTORS)

    def _prepare_stores(self, tokens: Mapping[str, str]) -> None:
        """Migrate and provision; an engine that listens may still be recovering, so it is asked again."""
        self._progress.begun("preparing the stores")
        settings = load_settings({FILE_VARIABLE: str(self._layout.settings_file)})
        while True:
            try:
                return asyncio.run(self._write_stores(settings, tokens))
            except Unavailable as e:
                if time.monotonic() >= self._deadline:
                    log = self._layout.log("up")
                    log.write_text("".join(traceback.format_exception(e)))
                    text = f"the stores cannot be prepared: {e.public}; the details are in {log}"
                    raise NotHealthy(text) from e
                time.sleep(POLL_S)

    async def _write_stores(self, settings: Settings, tokens: Mapping[str, str]) -> None:
        async for step in migrate(settings):
            self._progress.done(f"applied {step}")
        client_id, secret = belongings.ensure_credentials(self._layout)
        client = NewClient(client_id=client_id, secret=Secret(secret), tenant=DEMO_TENANT, scopes=DEMO_SCOPES)
        sources = [
            NewSource(name=name, token=Secret(token), tenant=DEMO_TENANT) for name, token in tokens.items()
        ]
        await provision(settings, [client], sources)
        if DEMO_SOURCE in tokens:
            await provision_demo_desk(settings, DEMO_TENANT, DEMO_SOURCE)

    def _of(self, *stages: Stage) -> list[Program]:
        return [program for program in self.programs if program.stage in stages]

    def _await_ready(self, programs: Iterable[Program]) -> None:
        """Wait until all are ready. What drains has all the time it needs, as long as it stays alive."""
        pending = list(programs)
        while pending:
            states = self._rpc.states()
            findings = {program.name: self._look(program, states[program.name]) for program in pending}
            for program in [program for program in pending if findings[program.name].ready]:
                pending.remove(program)
                self._progress.done(f"{program.name} is ready{_where(program)}")
            self._give_up_on(pending, findings)
            if pending:
                self._progress.begun(_waiting(pending, findings))
                time.sleep(POLL_S)

    def _look(self, program: Program, state: ProcessState) -> Finding:
        starts = self._starts.setdefault(program.name, set())
        if state.started_at:
            starts.add(state.started_at)
        if state.state == "FATAL" or len(starts) >= STARTS_MAX:
            reason = f": {probe(program).problem}" if program.probe is Probe.CONNECTOR else ""
            text = f"{program.name} does not stay alive{reason}"
            raise NotHealthy(text, log=self._layout.log(program.name))
        if state.state not in {"STARTING", "RUNNING"}:
            return Finding(ready=False, problem=state.problem or f"is {state.state.lower()}")
        return probe(program)

    def _give_up_on(self, pending: Sequence[Program], findings: Mapping[str, Finding]) -> None:
        late = [program for program in pending if not (program.drains and findings[program.name].rows)]
        if late and time.monotonic() >= self._deadline:
            program = late[0]
            text = f"{program.name} is not ready after {HEALTHY_TIMEOUT_S:g} s"
            problem = findings[program.name].problem
            raise NotHealthy(f"{text}: {problem}", log=self._layout.log(program.name))


def detach(process: subprocess.Popen[bytes]) -> None:
    """Let supervisord outlive this process."""
    assert process.stdin is not None
    process.stdin.write(supervision.DETACH)
    process.stdin.close()


def _where(program: Program) -> str:
    return f" on port {program.port}" if program.port else ""


def _waiting(pending: Sequence[Program], findings: Mapping[str, Finding]) -> str:
    words = []
    for program in pending:
        rows = findings[program.name].rows
        words.append(f"{program.name} ({rows:,} ticks replayed)" if program.drains and rows else program.name)
    return "waiting for " + ", ".join(words)


def _warm_up(stores: Iterable[str]) -> None:
    """Load what the preparation needs while the engines start; a problem shows when it is really needed."""
    for store in stores:
        with contextlib.suppress(TickgateError):
            resolve(f"core.adapters.{store}.schema:open_schema")


def _preparation_mark(stores: Iterable[str], tokens: Mapping[str, str]) -> str:
    """Return a fingerprint of everything that is written to the stores before the services start."""
    digest = hashlib.sha256(repr(DEMO_SCOPES).encode())
    for store in stores:
        for step in steps(store):
            digest.update(f"{store}\0{step.number}\0{step.checksum}\0".encode())
    for source, token in sorted(tokens.items()):
        digest.update(f"{source}\0{token}\0".encode())
    return digest.hexdigest()


def _prepared_record(layout: Layout, mark: str) -> dict[str, object]:
    # An engine's directory that was deleted comes back with another inode, and its store empty.
    inodes = {name: layout.engine(name).stat().st_ino for name in ("postgres", "clickhouse")}
    return {"mark": mark, "directories": inodes}


def _prepared(layout: Layout, mark: str) -> bool:
    try:
        return belongings.read_tree(layout.prepared_file) == _prepared_record(layout, mark)
    except OSError:
        return False
