"""Uses of an etcd cluster by the Python package etcd3.

Each case is a line: "case NAME ok", or "case NAME FAILED: WHY", and then the
exit code is 1.

    uses.py HOST:PORT CA CERT KEY
"""

import sys
import threading
import time

import etcd3


def want(holds, *why):
    if not holds:
        raise AssertionError(*why)


def put_get_and_delete(c, p):
    c.put(p + "a", "1")
    c.put(p + "a", "2")
    value, meta = c.get(p + "a")
    want((value, meta.version, meta.mod_revision - meta.create_revision) == (b"2", 2, 1), value, meta.version)
    want(c.put_if_not_exists(p + "a", "3") is False, "it was there")
    want(c.replace(p + "a", "2", "3") is True, "it was 2")
    want(c.delete(p + "a") is True and c.get(p + "a")[0] is None, "it is still there")
    want(c.delete(p + "a") is False, "nothing was there")


def ranges_by_prefix_and_order(c, p):
    for key, value in (("a", "3"), ("b", "1"), ("c", "2")):
        c.put(p + key, value)
    want([v for v, _ in c.get_prefix(p)] == [b"3", b"1", b"2"])
    want([v for v, _ in c.get_prefix(p, sort_order="descend", sort_target="value")] == [b"3", b"2", b"1"])
    want([v for v, _ in c.get_prefix(p, keys_only=True)] == [b"", b"", b""])
    want([v for v, _ in c.get_range(p + "a", p + "c")] == [b"3", b"1"])
    want(c.delete_prefix(p).deleted == 3)


def nested_transactions(c, p):
    c.put(p + "a", "1")
    t = c.transactions
    inner = t.txn(compare=[t.version(p + "b") == 0], success=[t.put(p + "b", "inner")], failure=[])
    done, responses = c.transaction(
        compare=[t.value(p + "a") == "1", t.create(p + "a") > 0],
        success=[t.put(p + "a", "2"), t.get(p + "a"), inner],
        failure=[t.delete(p + "a")],
    )
    want(done and responses[1][0][0] == b"2", done, responses)
    want(c.get(p + "b")[0] == b"inner")
    done, responses = c.transaction(compare=[t.value(p + "a") == "1"], success=[], failure=[t.get(p + "a")])
    want(not done and responses[0][0][0] == b"2", done, responses)


def watch_a_prefix(c, p):
    revision = c.put(p + "a", "1").header.revision
    events, cancel = c.watch_prefix(p, start_revision=revision, prev_kv=True)
    c.put(p + "a", "2")
    c.delete(p + "a")
    told = []
    for event in events:
        told.append((type(event).__name__, event.value, event.prev_value))
        if len(told) == 3:
            cancel()
    want(
        told == [("PutEvent", b"1", b""), ("PutEvent", b"2", b"1"), ("DeleteEvent", b"", b"2")],
        told,
    )


def compaction_is_told(c, p):
    first = c.put(p + "a", "1").header.revision
    last = c.put(p + "a", "2").header.revision
    c.compact(last)
    events, _ = c.watch(p + "a", start_revision=first)
    try:
        next(iter(events))
    except etcd3.exceptions.RevisionCompactedError as e:
        want(e.compacted_revision == last, e.compacted_revision)
    else:
        raise AssertionError("a watch of the past went on")


def lease_is_granted_kept_and_revoked(c, p):
    lease = c.lease(60)
    c.put(p + "a", "1", lease)
    want(list(lease.refresh())[0].TTL == 60)
    want(lease.granted_ttl == 60 and 50 < lease.remaining_ttl <= 60, lease.granted_ttl, lease.remaining_ttl)
    want(lease.keys == [(p + "a").encode()], lease.keys)
    own = c.lease(60, lease_id=lease.id + 1)
    want(own.id == lease.id + 1)
    own.revoke()
    lease.revoke()
    want(c.get(p + "a")[0] is None, "its key is still there")


def lease_expires(c, p):
    c.put(p + "a", "1", c.lease(2))
    began = time.monotonic()
    events, cancel = c.watch(p + "a")
    # It may have been too late for the event.
    end = began + 20
    while c.get(p + "a")[0] is not None:
        want(time.monotonic() < end, "it is still there")
        time.sleep(0.1)
    cancel()
    want(time.monotonic() - began > 1.5, time.monotonic() - began)


def locks_exclude_each_other(c, p):
    inside, most, held = 0, 0, 0

    def worker():
        nonlocal inside, most, held
        for _ in range(5):
            with c.lock(p + "lock", ttl=10):
                inside += 1
                most = max(most, inside)
                time.sleep(0.01)
                inside -= 1
                held += 1

    workers = [threading.Thread(target=worker) for _ in range(3)]
    for w in workers:
        w.start()
    for w in workers:
        w.join(60)
    want((most, held) == (1, 15), most, held)


def status_members_and_alarms(c, p):
    status = c.status()
    want(status.version.startswith("3.") and status.leader is not None and status.db_size > 0, status.version)
    members = list(c.members)
    want(len(members) == 3 and all(m.name and m.peer_urls and m.client_urls for m in members), members)
    want(list(c.list_alarms()) == [])
    want(c.hash() is not None)
    c.defragment()


CASES = (
    put_get_and_delete,
    ranges_by_prefix_and_order,
    nested_transactions,
    watch_a_prefix,
    compaction_is_told,
    lease_is_granted_kept_and_revoked,
    lease_expires,
    locks_exclude_each_other,
    status_members_and_alarms,
)


def main():
    endpoint, ca, cert, key = sys.argv[1:]
    host, port = endpoint.rsplit(":", 1)
    failed = False
    for case in CASES:
        name = case.__name__
        client = etcd3.client(host=host, port=int(port), ca_cert=ca, cert_cert=cert, cert_key=key, timeout=30)
        prefix = "python/" + name + "/"
        try:
            client.delete_prefix(prefix)
            case(client, prefix)
            print("case", name, "ok", flush=True)
        except Exception as e:  # each case is told on its own
            failed = True
            print("case", name, "FAILED:", type(e).__name__, e, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
