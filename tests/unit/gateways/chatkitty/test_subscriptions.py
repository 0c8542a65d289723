"""Subscriptions against a model: one of each key gets what comes, the others stand by in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from offhook.gateways.chatkitty.subscriptions import Subscription, Subscriptions

KEYS = st.sampled_from(["self", "contacts", "errors"])
IDS = st.sampled_from([f"s{number}" for number in range(6)])


def subscription(name: str, acks: bool = False) -> Subscription:
    return Subscription(name, f"/topic/{name}", acks)


@given(st.lists(st.tuples(st.booleans(), KEYS, IDS), max_size=60))
def test_agrees_with_a_list(steps: list[tuple[bool, str, str]]) -> None:
    real, model = Subscriptions(), dict[str, str]()
    for adding, key, name in steps:
        if adding:
            real.add(key, subscription(name))
            model.pop(name, None)
            model[name] = key
        else:
            assert real.remove(name) is (model.pop(name, None) is not None)
        assert real.count == len(model)
        for one in ("self", "contacts", "errors"):
            expected = next((name for name, its in model.items() if its == one), None)
            found = real.get(one)
            assert (found.id if found is not None else None) == expected
            other = real.any_but(one)
            assert (other is not None) is any(its != one for its in model.values())
            assert other is None or model[other.id] != one
        assert real.have(frozenset(model.values()))
        assert not real.have(frozenset({*model.values(), "missing"}))


def test_a_subscription_keeps_its_own_words() -> None:
    subscriptions = Subscriptions()
    mine = Subscription("my: id\n", "/topic/a:b", True)
    subscriptions.add("self", mine)
    found = subscriptions.get("self")
    assert found is mine and found.acks
    assert found.prefix is None
    assert found.make_prefix() == b"MESSAGE\nsubscription:my\\c id\\n\ndestination:/topic/a\\cb\n"
    assert found.prefix == found.make_prefix()
