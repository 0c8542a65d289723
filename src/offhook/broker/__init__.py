"""Topics, leases and commands among nodes.

::

    memory.py     one process is the whole system
    redis.py      many nodes: Redis carries, the journal has the truth
      sequencer   puts each topic's events in order, from wherever they come
      lookout     looks up in the journal what did not come
      mesh        one Redis server, or the masters of a cluster
      link, wire  the connections to one of them
      codec       what travels
"""

from __future__ import annotations

from offhook.broker.opening import MEMORY, NodeBroker, check_broker_url, open_broker

__all__ = ["MEMORY", "NodeBroker", "check_broker_url", "open_broker"]
