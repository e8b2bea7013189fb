"""What happens when in a simulation, and how connections share the cards of hosts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pytest

from workers.throughput.simulation import Cards, Connection, EventCount, Process, Simulation


def arrivals(cards: Mapping[int, float], *messages: tuple[str, int, int, float, float]) -> dict[str, float]:
    """When messages arrive that are sent over these cards, each by a connection of its own.

    Args:
        cards: bytes a second of each host's card.
        messages: name, the hosts that it goes from and to, its bytes, and when it is sent.
    """
    simulation, arrived = Simulation(), dict[str, float]()
    network = Cards(simulation, cards)

    def note(name: str) -> None:
        arrived[name] = simulation.now

    for name, source, target, size, at in messages:
        simulation.after(at, partial(network.send, Connection(source, target), size, partial(note, name)))
    simulation.run(lambda: len(arrived) == len(messages))
    return arrived


def test_alone_a_message_has_the_slower_of_two_cards() -> None:
    assert arrivals({0: 4.0, 1: 2.0}, ("a", 0, 1, 8.0, 1.0)) == {"a": 5.0}


def test_two_connections_share_a_card_until_one_of_them_is_done() -> None:
    same = {0: 2.0, 1: 8.0, 2: 8.0}
    assert arrivals(same, ("long", 0, 1, 4.0, 0.0), ("short", 0, 2, 2.0, 0.0)) == {"short": 2.0, "long": 3.0}


def test_one_that_comes_later_takes_its_part_from_then_on() -> None:
    same = {0: 2.0, 1: 8.0, 2: 8.0}
    assert arrivals(same, ("first", 0, 1, 4.0, 0.0), ("second", 0, 2, 4.0, 1.0)) == {"first": 3.0, "second": 4.0}


def test_what_a_slow_receiver_leaves_is_for_the_others() -> None:
    cards = {0: 4.0, 1: 1.0, 2: 8.0}
    assert arrivals(cards, ("slow", 0, 1, 4.0, 0.0), ("fast", 0, 2, 12.0, 0.0)) == {"slow": 4.0, "fast": 4.0}


def test_senders_share_the_card_of_their_receiver() -> None:
    cards = {0: 8.0, 1: 8.0, 2: 2.0}
    assert arrivals(cards, ("a", 0, 2, 4.0, 0.0), ("b", 1, 2, 4.0, 0.0)) == {"a": 4.0, "b": 4.0}


def test_the_two_directions_of_a_card_are_not_shared() -> None:
    assert arrivals({0: 2.0, 1: 2.0}, ("there", 0, 1, 4.0, 0.0), ("back", 1, 0, 4.0, 0.0)) == {
        "there": 2.0,
        "back": 2.0,
    }


def test_messages_of_one_connection_arrive_one_after_the_other() -> None:
    simulation, arrived = Simulation(), list[tuple[str, float]]()
    cards, connection = Cards(simulation, {0: 2.0, 1: 2.0}), Connection(0, 1)
    for name in ("a", "b"):
        cards.send(connection, 4.0, lambda name=name: arrived.append((name, simulation.now)))
    simulation.run(lambda: len(arrived) == 2)
    assert arrived == [("a", 2.0), ("b", 4.0)]


@pytest.mark.parametrize("count", [1, 3, 7])
def test_all_that_is_sent_arrives_in_the_time_that_the_card_takes_for_it(count: int) -> None:
    """Whatever share each has: a card is never idle while something waits for it."""
    sent = [(f"{n}", 0, n + 1, 1.0 + n, 0.0) for n in range(count)]
    found = arrivals({0: 3.0, **{n + 1: 100.0 for n in range(count)}}, *sent)
    assert max(found.values()) == pytest.approx(sum(size for _, _, _, size, _ in sent) / 3.0)
    assert sorted(found.values()) == list(found.values())


def test_a_process_goes_on_when_the_count_that_it_waits_for_is_reached() -> None:
    simulation, count, seen = Simulation(), EventCount(), list[tuple[str, float]]()

    def waits(name: str, least: int) -> Process:
        yield count, least
        seen.append((name, simulation.now))

    def counts() -> Process:
        for _ in range(3):
            yield 2.0
            simulation.advance(count)

    for process in (waits("third", 3), waits("none", 0), waits("first", 1), counts()):
        simulation.start(process)
    simulation.run(lambda: len(seen) == 3)
    assert seen == [("none", 0.0), ("first", 2.0), ("third", 6.0)]
