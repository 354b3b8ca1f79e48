"""Whatever is done to an anchored trail, one command finds it: ten thousand mutations, every one of them detected."""

import os
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import msgspec
import pytest

from core.auditing.chain import FIRST, canonical, chained
from core.auditing.checkpoints import FIRST as FIRST_CHECKPOINT
from core.auditing.checkpoints import Checkpoint, Keyring, Signer
from core.auditing.merkle import Frontier
from core.auditing.verification import Verdict, verify
from core.infrastructure.signing_keys import new_key
from core.model.audit import AuditEntry

STREAM: Final = "demo"
EVENTS: Final = 24
ANCHORED: Final = (7, 15, 24)
"""After how many events a checkpoint was kept outside; the last one vouches for all."""
MUTATIONS: Final = int(os.environ.get("TICKGATE_AUDIT_MUTATIONS", "10000"))
KEY: Final = new_key(0)
KEYRING: Final = Keyring([KEY])
Entries = list[AuditEntry]


def linked(events: list[bytes]) -> Entries:
    """Chain events as the ledger does, whoever writes them."""
    entries: Entries = []
    previous = FIRST
    for seq, event in enumerate(events, 1):
        previous = chained(STREAM, seq, previous, event)
        told = msgspec.json.decode(event)
        entries.append(
            AuditEntry(
                seq=seq,
                type=told["type"],
                account=told["account"],
                order=told["order"],
                event=event,
                hash=previous,
            )
        )
    return entries


def event(number: int, text: str = "") -> bytes:
    return canonical(
        {
            "type": "order.submitted",
            "account": f"a{number % 3}",
            "order": f"o{number}",
            "facts": {"volume": f"0.{number}", "text": text or "ünï\n"},
        }
    )


def anchored(entries: Entries, signer: Signer) -> list[Checkpoint]:
    tree, kept, previous = Frontier(), [], FIRST_CHECKPOINT
    for entry in entries:
        tree.add(entry.hash)
        if tree.size in ANCHORED:
            checkpoint = signer.signed(
                Checkpoint(
                    stream=STREAM,
                    size=tree.size,
                    root=tree.root().hex(),
                    head=entry.hash.hex(),
                    previous=previous,
                    at_ms=tree.size,
                    key=signer.key_id,
                )
            )
            previous = checkpoint.digest()
            kept.append(checkpoint)
    return kept


ENTRIES: Final = linked([event(number) for number in range(EVENTS)])
CHECKPOINTS: Final = anchored(ENTRIES, Signer(KEY))


def verdict(entries: Entries, checkpoints: list[Checkpoint] = CHECKPOINTS) -> Verdict:
    return verify(STREAM, entries, checkpoints, KEYRING)


def edit(entries: Entries, chance: random.Random) -> Entries:
    """Change one field of one row, and nothing else."""
    at = chance.randrange(len(entries))
    entry, name = entries[at], chance.choice(["seq", "type", "account", "order", "event", "hash"])
    value = getattr(entry, name)
    if isinstance(value, int):
        changed: object = value + chance.choice([-1, 1, 1_000])
    elif isinstance(value, str):
        changed = value + "x"
    else:
        place = chance.randrange(len(value))
        changed = value[:place] + bytes([value[place] ^ (1 << chance.randrange(8))]) + value[place + 1 :]
    return [*entries[:at], replace(entry, **{name: changed}), *entries[at + 1 :]]


def delete(entries: Entries, chance: random.Random) -> Entries:
    at = chance.choice([0, len(entries) - 1, chance.randrange(len(entries))])
    return [*entries[:at], *entries[at + 1 :]]


def swap(entries: Entries, chance: random.Random) -> Entries:
    first, second = sorted(chance.sample(range(len(entries)), 2))
    swapped = list(entries)
    swapped[first], swapped[second] = swapped[second], swapped[first]
    return swapped


def insert(entries: Entries, chance: random.Random) -> Entries:
    at = chance.randrange(len(entries) + 1)
    if at == len(entries):
        # Behind the end anything may follow that is chained to it; this is not.
        return [*entries, replace(entries[-1], seq=len(entries) + 1)]
    return [*entries[:at], entries[chance.randrange(len(entries))], *entries[at:]]


def truncate(entries: Entries, chance: random.Random) -> Entries:
    return entries[: chance.randrange(len(entries))]


def fork(entries: Entries, chance: random.Random) -> Entries:
    """Write everything anew from one event on, with hashes that fit."""
    at = chance.randrange(len(entries))
    events = [entry.event for entry in entries]
    return linked([*events[:at], event(at, f"forged {chance.random()}"), *events[at + 1 :]])


def renumber(entries: Entries, chance: random.Random) -> Entries:
    """Leave one out and close the gap, with hashes that fit."""
    at = chance.randrange(len(entries))
    return linked([entry.event for number, entry in enumerate(entries) if number != at])


DEEDS: Final[tuple[Callable[[Entries, random.Random], Entries], ...]] = (
    edit,
    delete,
    swap,
    insert,
    truncate,
    fork,
    renumber,
)


def test_what_nobody_touched_is_sound() -> None:
    assert verdict(ENTRIES) == Verdict(stream=STREAM, events=EVENTS, anchored=EVENTS)


def test_what_follows_the_last_checkpoint_is_sound_but_nobody_vouches_for_it() -> None:
    longer = linked([*(entry.event for entry in ENTRIES), event(99)])
    assert verdict(longer) == Verdict(stream=STREAM, events=EVENTS + 1, anchored=EVENTS)


def test_ten_thousand_mutations_are_all_found() -> None:
    chance = random.Random(4)
    missed = []
    for number in range(MUTATIONS):
        deed = DEEDS[number % len(DEEDS)]
        mutated = deed(list(ENTRIES), chance)
        assert mutated != ENTRIES
        if verdict(mutated).finding is None:
            missed.append((number, deed.__name__))
    assert missed == []


def test_the_first_bad_event_is_named() -> None:
    for at in range(EVENTS):
        broken = [*ENTRIES[:at], replace(ENTRIES[at], account="other"), *ENTRIES[at + 1 :]]
        finding = verdict(broken).finding
        assert finding is not None
        assert finding.seq == at + 1


@pytest.mark.parametrize("kept", [1, 2])
def test_an_old_anchor_does_not_make_a_shorter_trail_whole(kept: int) -> None:
    # Who has an old copy of the anchor sees only what it knew; with the newest one the end is missed.
    shorter = ENTRIES[: ANCHORED[kept - 1]]
    assert verdict(shorter, CHECKPOINTS[:kept]).finding is None
    assert verdict(shorter).finding is not None


def test_a_checkpoint_nobody_of_us_has_signed_is_refused() -> None:
    forged = anchored(linked([event(number, "forged") for number in range(EVENTS)]), Signer(new_key(0)))
    found = verdict(linked([event(number, "forged") for number in range(EVENTS)]), forged)
    assert found.finding is not None
    assert "not signed" in found.finding.what


def test_checkpoints_that_were_thinned_out_do_not_follow_each_other() -> None:
    for left_out in range(len(ANCHORED) - 1):
        thinned = [one for number, one in enumerate(CHECKPOINTS) if number != left_out]
        finding = verdict(ENTRIES, thinned).finding
        assert finding is not None
        assert "does not follow" in finding.what


def test_a_trail_of_another_stream_is_not_this_one() -> None:
    assert verify("rival", ENTRIES, [], KEYRING).finding is not None
