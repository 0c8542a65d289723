"""What brokers on one Redis do for each other while all is well."""

from __future__ import annotations

import asyncio
import statistics
import time
import traceback
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from tests.redis_servers import RedisServer, redis_server
from tests.unit.broker.nodes import Nodes, nodes_on
from tests.unit.broker.shared import an_event, until

from offhook.broker.lookout import LOOK_CALM
from offhook.broker.mesh import parse_broker_url
from offhook.codes import EndReason
from offhook.domain.events import Origin, Position, Topic
from offhook.errors import InvalidInput
from offhook.ports import EVERY_NODE, ApplicationChanged, EndSession, HistoryLost
from offhook.testing.process import free_port

TOPIC, OTHER = Topic("application.1"), Topic("user.1")


@pytest.fixture
async def nodes(server: RedisServer) -> AsyncIterator[Nodes]:
    async with nodes_on(server.url, topics=[TOPIC]) as nodes:
        await nodes.ready()
        yield nodes


async def test_all_nodes_hear_what_each_commits_in_one_order(nodes: Nodes) -> None:
    await nodes.load([TOPIC], 1.0, rate=1000)
    delay = await nodes.complete([TOPIC])
    one, other = (node.publications for node in nodes.nodes)
    assert [publication.event for publication in one] == [publication.event for publication in other]
    print(f"longest way {delay * 1000:.1f} ms")
    assert delay < 1.0


async def test_a_node_hears_only_the_topics_it_wants(nodes: Nodes) -> None:
    one, other = nodes.nodes
    await other.broker.subscribe(OTHER)
    nodes.commit(one, OTHER)
    await until(lambda: other.heard[OTHER] == [1])
    await other.broker.unsubscribe(OTHER)
    nodes.commit(one, OTHER)
    nodes.commit(one, TOPIC)
    await until(lambda: other.heard[TOPIC] == [1])
    await other.broker.subscribe(OTHER)
    nodes.commit(one, OTHER)
    await until(lambda: other.heard[OTHER] == [1, 3])
    assert not one.heard[OTHER]


async def test_the_origin_goes_with_the_event(nodes: Nodes) -> None:
    one, other = nodes.nodes
    one.broker.deliver([nodes.journal.commit(TOPIC, an_event(), Origin(5, "r-1"))])
    await until(lambda: bool(other.publications))
    assert [node.publications[0].origin for node in (one, other)] == [Origin(5, "r-1")] * 2


async def test_an_own_event_that_was_read_before_it_was_told_is_told_to_its_origin(nodes: Nodes) -> None:
    one, other = nodes.nodes
    first = nodes.journal.commit(TOPIC, an_event(), Origin(5, "r-1"))
    nodes.commit(other, TOPIC)
    # The second came from the other node; the first, whose commit is not known here yet, is read in the journal.
    await until(lambda: one.heard[TOPIC] == [1, 2])
    assert one.publications[0].origin is None and not one.late
    one.broker.deliver([first])
    assert one.late == [first] and one.heard[TOPIC] == [1, 2]
    assert one.broker.counts.gaps == 1


async def test_a_last_message_that_was_lost_is_found_at_the_next_look(nodes: Nodes) -> None:
    one, other = nodes.nodes
    nodes.journal.commit(TOPIC, an_event())
    took = await until(lambda: one.heard[TOPIC] == [1] and other.heard[TOPIC] == [1], within=LOOK_CALM + 1)
    print(f"found after {took:.2f} s")


async def test_history_goes_as_far_as_another_node_has_told(nodes: Nodes) -> None:
    one = nodes.nodes[0]
    for _ in range(3):
        nodes.journal.commit(TOPIC, an_event())
    # The client comes from a node that has told it of all three, and here nothing was heard of yet.
    assert (await one.broker.position(TOPIC)).offset == 0
    (third,) = await one.broker.history(TOPIC, Position("e1", 2), 10)
    assert third is one.publications[2]
    assert one.heard[TOPIC] == [1, 2, 3]
    with pytest.raises(HistoryLost):
        await one.broker.history(TOPIC, Position("e1", 4), 10)
    with pytest.raises(HistoryLost):
        await one.broker.history(TOPIC, Position("e2", 1), 10)


async def test_history_and_what_is_handed_out_meet_without_a_gap_or_an_overlap(nodes: Nodes) -> None:
    one, other = nodes.nodes
    loading = asyncio.create_task(nodes.load([TOPIC], 1.0))
    while not loading.done():
        page = await one.broker.history(TOPIC, Position("e1", max(0, len(one.heard[TOPIC]) - 3)), 200)
        offsets = [publication.position.offset for publication in page]
        assert offsets == one.heard[TOPIC][-len(offsets) :] or not offsets
        await asyncio.sleep(0)
    await nodes.complete([TOPIC])
    assert other.heard[TOPIC] == one.heard[TOPIC]


async def test_subscribing_while_others_commit_misses_nothing(nodes: Nodes) -> None:
    one = nodes.nodes[0]
    loading = asyncio.create_task(nodes.load([OTHER], 0.5))
    await until(lambda: len(nodes.journal.events.get(OTHER, [])) > 20)
    await one.broker.subscribe(OTHER)
    place = await one.broker.position(OTHER)
    await loading
    head = len(nodes.journal.events[OTHER])
    await until(lambda: bool(one.heard[OTHER]) and one.heard[OTHER][-1] == head)
    assert [offset for offset in one.heard[OTHER] if offset > place.offset] == list(range(place.offset + 1, head + 1))


async def test_commands_reach_the_node_they_are_for(nodes: Nodes) -> None:
    one, other = nodes.nodes
    command = EndSession(1, EndReason.OPERATOR, "bye")
    assert await one.broker.send(other.name, command) is True
    await until(lambda: other.commands == [command])
    assert await one.broker.send("nobody", command) is False
    everyone = ApplicationChanged(1, closed=True)
    assert await one.broker.send(EVERY_NODE, everyone) is True
    await until(lambda: one.commands == [everyone] and other.commands == [command, everyone])


async def test_what_cannot_be_understood_is_looked_up(nodes: Nodes, server: RedisServer) -> None:
    one = nodes.nodes[0]
    resyncs = one.resyncs
    async with server.client() as client:
        channels = [str(name) for name in await client.execute_command("PUBSUB", "SHARDCHANNELS")]  # type: ignore[no-untyped-call]
        for channel in channels:
            await client.spublish(channel, "gibberish")
            await client.spublish(channel, b"\x01" + b"x" * 40)
    nodes.commit(nodes.nodes[1], TOPIC)
    await until(lambda: one.resyncs > resyncs and one.heard[TOPIC] == [1])
    assert one.broker.counts.undecodable >= 2


async def test_history_that_is_gone_is_told_as_a_gap(nodes: Nodes) -> None:
    one, other = nodes.nodes
    for _ in range(5):
        nodes.journal.commit(TOPIC, an_event())
    nodes.journal.forget(TOPIC, 5)
    nodes.commit(other, TOPIC)
    await until(lambda: one.heard[TOPIC] == [6] and one.gaps == [TOPIC])
    assert one.broker.counts.lost == 1


async def test_another_epoch_starts_everything_over(nodes: Nodes) -> None:
    one, other = nodes.nodes
    nodes.commit(one, TOPIC)
    await nodes.complete([TOPIC])
    nodes.journal.epoch = "e2"
    for node in nodes.nodes:
        node.broker.turned()
    await until(lambda: all(node.gaps == [TOPIC] for node in nodes.nodes))
    await nodes.ready()
    nodes.commit(one, TOPIC)
    await until(lambda: one.heard[TOPIC] == other.heard[TOPIC] == [1, 2])


async def test_a_journal_that_is_away_delays_and_loses_nothing(nodes: Nodes) -> None:
    one, other = nodes.nodes
    nodes.journal.away = True
    await asyncio.wait_for(one.broker.subscribe(OTHER), 2.0)
    nodes.journal.commit(TOPIC, an_event())
    nodes.commit(other, TOPIC)
    nodes.commit(other, OTHER)
    await until(lambda: one.broker.counts.reads > 0)
    assert not one.heard[TOPIC]
    nodes.journal.away = False
    await until(lambda: one.heard[TOPIC] == [1, 2] and one.heard[OTHER] == [1])


async def test_over_tls_with_a_name_and_a_password(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    port = free_port()
    files = ("--tls-cert-file", str(tmp_path / "cert.pem"), "--tls-key-file", str(tmp_path / "key.pem"))
    options = ("--tls-port", str(port), "--tls-auth-clients", "no", *files)
    async with redis_server(tmp_path / "redis", *options) as server:
        # No more than a broker needs.
        rights = ("+ssubscribe", "+sunsubscribe", "+spublish", "+ping", "+hello", "+auth")
        await server.run("ACL", "SETUSER", "node", "on", ">p@ss", "resetchannels", "&test-*", *rights)
        await server.run("ACL", "SETUSER", "default", "off")
        url = f"rediss://node:p%40ss@127.0.0.1:{port}?ssl_ca_certs={tmp_path / 'ca.pem'}"
        async with nodes_on(url, topics=[TOPIC]) as nodes:
            await nodes.ready()
            nodes.commit(nodes.nodes[0], TOPIC)
            await until(lambda: nodes.nodes[1].heard[TOPIC] == [1])
            assert not nodes.nodes[1].broker.counts.reads
        # Whoever does not trust the server does not talk to it.
        async with nodes_on(url.partition("?")[0], topics=[TOPIC]) as nodes:
            nodes.commit(nodes.nodes[0], TOPIC)
            await until(lambda: nodes.nodes[1].heard[TOPIC] == [1])
            assert not any(node.broker.connected for node in nodes.nodes)


@pytest.mark.parametrize(
    "url",
    ["http://x", "redis://", "redis://a,b", "memory://", "redis://x:port", "redis+cluster://", "redis://x?no_such=1"],
)
async def test_urls_that_cannot_be_followed_are_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        parse_broker_url(url)


@pytest.mark.parametrize(
    "url", ["redis://node:s3cret/x@h:1", "redis://node:s3cret#x@h:1", "redis://:s3cret?x@h", "redis://h?s3cret=1"]
)
async def test_what_is_said_of_a_url_tells_nothing_of_its_password(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_broker_url(url)
    shown = "".join(traceback.format_exception(caught.value))
    assert "s3cret" not in shown.replace(url, "")


async def test_servers_do_not_show_the_password() -> None:
    assert "s3cret" not in repr(parse_broker_url("redis://node:s3cret@h"))


async def test_urls_name_servers() -> None:
    assert parse_broker_url("redis://user:p%40ss@h:7000/2").seeds == (("h", 7000),)
    cluster = parse_broker_url("rediss+cluster://u:p@a:1,b,c:3?ssl_cert_reqs=none")
    assert cluster.cluster and cluster.seeds == (("a", 1), ("b", 6379), ("c", 3))
    assert cluster.url == "rediss://u:p@a:1?ssl_cert_reqs=none"


async def test_what_it_costs(nodes: Nodes) -> None:
    """Prints it; the bounds are far from what is measured, for slow machines."""
    one, other = nodes.nodes
    latencies = []
    for _ in range(500):
        publication = nodes.commit(one, TOPIC)
        key = (TOPIC, publication.position.offset)
        await until(lambda key=key: key in other.heard_at)  # type: ignore[misc]
        latencies.append(other.heard_at[key] - nodes.committed_at[key])
    latencies.sort()
    await other.broker.unsubscribe(TOPIC)
    publications = [nodes.journal.commit(OTHER, an_event()) for _ in range(20_000)]
    began = time.process_time()
    one.broker.deliver(publications)
    queued = time.process_time() - began
    await until(lambda: not one.broker.counts.drops and one.broker.connected)
    print(
        f"latency median {statistics.median(latencies) * 1000:.2f} ms, p99 {latencies[-5] * 1000:.2f} ms; "
        f"queueing {queued / len(publications) * 1e6:.1f} us each"
    )
    assert latencies[len(latencies) // 2] < 0.1
