package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// Each begins with an empty prefix of its own, and a client.
var uses = []testCase{
	use("put_get_and_delete", putGetDelete),
	use("ranges_by_prefix_limit_order_and_count", ranges),
	use("nested_transactions", nested),
	use("watch_from_a_revision_with_previous_values", watchFrom),
	use("watch_filters_fragments_and_progress", watchOptions),
	use("compaction_is_told_to_reads_and_watches", compaction),
	use("lease_is_granted_kept_and_revoked", leases),
	use("lease_expires", leaseExpires),
	use("status_members_and_hashes", maintenance),
	use("errors_are_etcds_own", errorCodes),
	use("stm_counts_every_increment", stm),
}

func use(name string, run func(context.Context, *clientv3.Client, string) error) testCase {
	return testCase{name, func(ctx context.Context) (string, error) {
		client, err := connect()
		if err != nil {
			return "", err
		}
		defer client.Close()
		prefix := "go/" + name + "/"
		if _, err := client.Delete(ctx, prefix, clientv3.WithPrefix()); err != nil {
			return "", err
		}
		return "", run(ctx, client, prefix)
	}}
}

func want(holds bool, format string, args ...any) error {
	if holds {
		return nil
	}
	return fmt.Errorf(format, args...)
}

func keys(r *clientv3.GetResponse) string {
	var out []string
	for _, kv := range r.Kvs {
		out = append(out, string(kv.Key[strings.LastIndex(string(kv.Key), "/")+1:])+"="+string(kv.Value))
	}
	return strings.Join(out, " ")
}

func fill(ctx context.Context, c *clientv3.Client, prefix string, pairs ...string) (int64, error) {
	var revision int64
	for _, pair := range pairs {
		key, value, _ := strings.Cut(pair, "=")
		put, err := c.Put(ctx, prefix+key, value)
		if err != nil {
			return 0, err
		}
		revision = put.Header.Revision
	}
	return revision, nil
}

func putGetDelete(ctx context.Context, c *clientv3.Client, p string) error {
	first, err := fill(ctx, c, p, "a=1")
	if err != nil {
		return err
	}
	put, err := c.Put(ctx, p+"a", "2", clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	if err := want(string(put.PrevKv.Value) == "1" && put.Header.Revision == first+1, "put answered %v", put); err != nil {
		return err
	}
	got, err := c.Get(ctx, p+"a")
	if err != nil {
		return err
	}
	kv := got.Kvs[0]
	if err := want(kv.CreateRevision == first && kv.ModRevision == first+1 && kv.Version == 2, "got %v", kv); err != nil {
		return err
	}
	old, err := c.Get(ctx, p+"a", clientv3.WithRev(first), clientv3.WithSerializable())
	if err != nil {
		return err
	}
	if err := want(keys(old) == "a=1", "the past is %s", keys(old)); err != nil {
		return err
	}
	gone, err := c.Delete(ctx, p, clientv3.WithPrefix(), clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	return want(gone.Deleted == 1 && string(gone.PrevKvs[0].Value) == "2", "delete answered %v", gone)
}

func ranges(ctx context.Context, c *clientv3.Client, p string) error {
	if _, err := fill(ctx, c, p, "a=3", "b=1", "c=2", "d=0"); err != nil {
		return err
	}
	for _, q := range []struct {
		want  string
		count int64
		more  bool
		with  []clientv3.OpOption
	}{
		{"a=3 b=1 c=2 d=0", 4, false, nil},
		{"a=3 b=1", 4, true, []clientv3.OpOption{clientv3.WithLimit(2)}},
		{"d=0 b=1 c=2 a=3", 4, false, []clientv3.OpOption{clientv3.WithSort(clientv3.SortByValue, clientv3.SortAscend)}},
		{"d=0", 4, true, []clientv3.OpOption{clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend), clientv3.WithLimit(1)}},
		{"", 4, false, []clientv3.OpOption{clientv3.WithCountOnly()}},
		{"a= b= c= d=", 4, false, []clientv3.OpOption{clientv3.WithKeysOnly()}},
	} {
		r, err := c.Get(ctx, p, append(q.with, clientv3.WithPrefix())...)
		if err != nil {
			return err
		}
		if err := want(keys(r) == q.want && r.Count == q.count && r.More == q.more, "%q, count %d, more %v; want %v", keys(r), r.Count, r.More, q); err != nil {
			return err
		}
	}
	from, err := c.Get(ctx, p+"c", clientv3.WithRange(p+"d"))
	if err != nil {
		return err
	}
	return want(keys(from) == "c=2", "the range is %s", keys(from))
}

func nested(ctx context.Context, c *clientv3.Client, p string) error {
	if _, err := fill(ctx, c, p, "a=1"); err != nil {
		return err
	}
	inner := clientv3.OpTxn(
		[]clientv3.Cmp{clientv3.Compare(clientv3.Version(p+"b"), "=", 0)},
		[]clientv3.Op{clientv3.OpPut(p+"b", "inner"), clientv3.OpGet(p + "b")},
		[]clientv3.Op{clientv3.OpDelete(p + "b")})
	r, err := c.Txn(ctx).
		If(clientv3.Compare(clientv3.Value(p+"a"), "=", "1"), clientv3.Compare(clientv3.CreateRevision(p+"b"), "=", 0)).
		Then(clientv3.OpPut(p+"a", "2", clientv3.WithPrevKV()), inner).
		Else(clientv3.OpGet(p + "a")).
		Commit()
	if err != nil {
		return err
	}
	if err := want(r.Succeeded && len(r.Responses) == 2, "answered %v", r); err != nil {
		return err
	}
	in := r.Responses[1].GetResponseTxn()
	seen := in.Responses[1].GetResponseRange().Kvs
	if err := want(in.Succeeded && len(seen) == 1 && string(seen[0].Value) == "inner", "the inner one answered %v", in); err != nil {
		return err
	}
	if err := want(string(r.Responses[0].GetResponsePut().PrevKv.Value) == "1", "answered %v", r.Responses[0]); err != nil {
		return err
	}
	all, err := c.Get(ctx, p, clientv3.WithPrefix())
	if err != nil {
		return err
	}
	one := all.Kvs[0].ModRevision == all.Kvs[1].ModRevision && all.Kvs[0].ModRevision == r.Header.Revision
	return want(keys(all) == "a=2 b=inner" && one, "after it: %v", all.Kvs)
}

func next(ctx context.Context, w clientv3.WatchChan) (clientv3.WatchResponse, error) {
	select {
	case r, ok := <-w:
		if !ok {
			return r, errors.New("the watch ended")
		}
		return r, r.Err()
	case <-ctx.Done():
		return clientv3.WatchResponse{}, ctx.Err()
	}
}

func events(ctx context.Context, w clientv3.WatchChan, n int) ([]*clientv3.Event, error) {
	var all []*clientv3.Event
	for len(all) < n {
		r, err := next(ctx, w)
		if err != nil {
			return all, err
		}
		all = append(all, r.Events...)
	}
	return all, nil
}

func watchFrom(ctx context.Context, c *clientv3.Client, p string) error {
	first, err := fill(ctx, c, p, "a=1")
	if err != nil {
		return err
	}
	if _, err := fill(ctx, c, p, "a=2", "b=1"); err != nil {
		return err
	}
	w := c.Watch(ctx, p, clientv3.WithPrefix(), clientv3.WithRev(first+1), clientv3.WithPrevKV())
	if _, err := c.Delete(ctx, p+"a"); err != nil {
		return err
	}
	got, err := events(ctx, w, 3)
	if err != nil {
		return err
	}
	var said []string
	for _, e := range got {
		prev := "-"
		if e.PrevKv != nil {
			prev = string(e.PrevKv.Value)
		}
		said = append(said, fmt.Sprintf("%s %s=%s@%d was %s", e.Type, strings.TrimPrefix(string(e.Kv.Key), p), e.Kv.Value, e.Kv.ModRevision-first, prev))
	}
	expected := "PUT a=2@1 was 1, PUT b=1@2 was -, DELETE a=@3 was 2"
	return want(strings.Join(said, ", ") == expected, "%s; want %s", strings.Join(said, ", "), expected)
}

func watchOptions(ctx context.Context, c *clientv3.Client, p string) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	deletes := c.Watch(ctx, p, clientv3.WithPrefix(), clientv3.WithFilterPut(), clientv3.WithCreatedNotify())
	large := c.Watch(ctx, p, clientv3.WithPrefix(), clientv3.WithFragment(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
	for _, w := range []clientv3.WatchChan{deletes, large} {
		r, err := next(ctx, w)
		if err != nil {
			return err
		}
		if err := want(r.Created, "the first response is %v", r); err != nil {
			return err
		}
	}
	value := strings.Repeat("v", 600<<10)
	for range 2 {
		_, err := c.Txn(ctx).Then(clientv3.OpPut(p+"a", value), clientv3.OpPut(p+"b", value)).Commit()
		if err != nil {
			return err
		}
	}
	if _, err := c.Delete(ctx, p+"a"); err != nil {
		return err
	}
	got, err := events(ctx, large, 5)
	if err != nil {
		return err
	}
	if err := want(string(got[2].PrevKv.Value) == value && len(got) == 5, "%d events", len(got)); err != nil {
		return err
	}
	only, err := events(ctx, deletes, 1)
	if err != nil {
		return err
	}
	if err := want(len(only) == 1 && only[0].Type == clientv3.EventTypeDelete, "filtered: %v", only); err != nil {
		return err
	}
	if err := c.RequestProgress(ctx); err != nil {
		return err
	}
	r, err := next(ctx, deletes)
	if err != nil {
		return err
	}
	return want(r.IsProgressNotify() && r.Header.Revision >= only[0].Kv.ModRevision, "progress is %v", r)
}

func compaction(ctx context.Context, c *clientv3.Client, p string) error {
	first, err := fill(ctx, c, p, "a=1")
	if err != nil {
		return err
	}
	last, err := fill(ctx, c, p, "a=2", "a=3")
	if err != nil {
		return err
	}
	if _, err := c.Compact(ctx, last, clientv3.WithCompactPhysical()); err != nil {
		return err
	}
	_, err = c.Get(ctx, p+"a", clientv3.WithRev(first))
	if err := want(errors.Is(err, rpctypes.ErrCompacted), "a read of the past: %v", err); err != nil {
		return err
	}
	_, err = c.Compact(ctx, last)
	if err := want(errors.Is(err, rpctypes.ErrCompacted), "the same compaction: %v", err); err != nil {
		return err
	}
	_, err = c.Compact(ctx, last+1000000)
	if err := want(errors.Is(err, rpctypes.ErrFutureRev), "a compaction of the future: %v", err); err != nil {
		return err
	}
	r, err := next(ctx, c.Watch(ctx, p+"a", clientv3.WithRev(first)))
	// A member that has not applied the compaction yet still shows the past.
	for err == nil && len(r.Events) > 0 {
		r, err = next(ctx, c.Watch(ctx, p+"a", clientv3.WithRev(first)))
	}
	if err := want(errors.Is(err, rpctypes.ErrCompacted) && r.CompactRevision == last, "a watch of the past: %v, %v", r, err); err != nil {
		return err
	}
	again, err := events(ctx, c.Watch(ctx, p+"a", clientv3.WithRev(r.CompactRevision)), 1)
	if err != nil {
		return err
	}
	return want(string(again[0].Kv.Value) == "3", "from where it was told: %v", again)
}

func leases(ctx context.Context, c *clientv3.Client, p string) error {
	id := clientv3.LeaseID(4711)
	_, _ = c.Revoke(ctx, id)
	r, err := c.Grant(ctx, 60)
	if err != nil {
		return err
	}
	// An id of one's own needs the plain service.
	if _, err := c.Put(ctx, p+"a", "1", clientv3.WithLease(r.ID)); err != nil {
		return err
	}
	if _, err := c.Put(ctx, p+"b", "1", clientv3.WithLease(r.ID)); err != nil {
		return err
	}
	if _, err := c.Put(ctx, p+"b", "2", clientv3.WithIgnoreLease()); err != nil {
		return err
	}
	alive, err := c.KeepAliveOnce(ctx, r.ID)
	if err != nil {
		return err
	}
	left, err := c.TimeToLive(ctx, r.ID, clientv3.WithAttachedKeys())
	if err != nil {
		return err
	}
	ok := alive.TTL == 60 && left.GrantedTTL == 60 && left.TTL > 50 && len(left.Keys) == 2
	if err := want(ok, "kept alive: %v, left: %v", alive, left); err != nil {
		return err
	}
	all, err := c.Leases(ctx)
	if err != nil {
		return err
	}
	listed := false
	for _, l := range all.Leases {
		listed = listed || l.ID == r.ID
	}
	if err := want(listed, "leases: %v", all.Leases); err != nil {
		return err
	}
	got, err := c.Get(ctx, p+"b")
	if err != nil {
		return err
	}
	if err := want(got.Kvs[0].Lease == int64(r.ID), "the lease of a key: %v", got.Kvs); err != nil {
		return err
	}
	cmp, err := c.Txn(ctx).If(clientv3.Compare(clientv3.LeaseValue(p+"b"), "=", r.ID)).Commit()
	if err != nil || !cmp.Succeeded {
		return fmt.Errorf("comparing a lease: %v, %v", cmp, err)
	}
	w := c.Watch(ctx, p, clientv3.WithPrefix(), clientv3.WithRev(got.Header.Revision+1))
	if _, err := c.Revoke(ctx, r.ID); err != nil {
		return err
	}
	gone, err := events(ctx, w, 2)
	if err != nil {
		return err
	}
	one := gone[0].Type == clientv3.EventTypeDelete && gone[0].Kv.ModRevision == gone[1].Kv.ModRevision
	if err := want(one, "revoking told %v", gone); err != nil {
		return err
	}
	_, err = c.KeepAliveOnce(ctx, r.ID)
	return want(errors.Is(err, rpctypes.ErrLeaseNotFound), "keeping a revoked one: %v", err)
}

func leaseExpires(ctx context.Context, c *clientv3.Client, p string) error {
	r, err := c.Grant(ctx, 2)
	if err != nil {
		return err
	}
	put, err := c.Put(ctx, p+"a", "1", clientv3.WithLease(r.ID))
	if err != nil {
		return err
	}
	began := time.Now()
	got, err := events(ctx, c.Watch(ctx, p+"a", clientv3.WithRev(put.Header.Revision+1)), 1)
	if err != nil {
		return err
	}
	took := time.Since(began)
	// Not before its time; how much later is up to who leads meanwhile.
	if err := want(got[0].Type == clientv3.EventTypeDelete && took > 1900*time.Millisecond, "%v after %v", got, took); err != nil {
		return err
	}
	left, err := c.TimeToLive(ctx, r.ID)
	if err != nil {
		return err
	}
	return want(left.TTL == -1, "an expired one has %d left", left.TTL)
}

func maintenance(ctx context.Context, c *clientv3.Client, p string) error {
	if _, err := fill(ctx, c, p, "a=1"); err != nil {
		return err
	}
	members, err := c.MemberList(ctx)
	if err != nil {
		return err
	}
	got, err := c.Get(ctx, p+"a")
	if err != nil {
		return err
	}
	ids := map[uint64]bool{}
	for _, m := range members.Members {
		ids[m.ID] = true
		if err := want(m.Name != "" && len(m.PeerURLs) == 1 && len(m.ClientURLs) == 1, "a member: %v", m); err != nil {
			return err
		}
	}
	hashes := map[uint32]bool{}
	for _, endpoint := range c.Endpoints() {
		status, err := c.Status(ctx, endpoint)
		if err != nil {
			return err
		}
		ok := ids[status.Leader] && ids[status.Header.MemberId] && strings.HasPrefix(status.Version, "3.") && status.RaftTerm > 0 && status.DbSize > 0
		if err := want(ok, "status of %s: %v", endpoint, status); err != nil {
			return err
		}
		// A read through it first, so that it has come so far.
		hash, err := c.HashKV(ctx, endpoint, 0)
		if err != nil {
			return err
		}
		_ = hash
		at, err := c.HashKV(ctx, endpoint, got.Header.Revision)
		if err != nil {
			return err
		}
		hashes[at.Hash] = true
	}
	if err := want(len(hashes) == 1, "hashes of one revision: %v", hashes); err != nil {
		return err
	}
	alarms, err := c.AlarmList(ctx)
	if err != nil {
		return err
	}
	if _, err := c.Defragment(ctx, c.Endpoints()[0]); err != nil {
		return err
	}
	return want(len(alarms.Alarms) == 0, "alarms: %v", alarms)
}

func errorCodes(ctx context.Context, c *clientv3.Client, p string) error {
	many := make([]clientv3.Op, 200)
	for i := range many {
		many[i] = clientv3.OpPut(fmt.Sprint(p, i), "")
	}
	for _, q := range []struct {
		want error
		run  func() error
	}{
		{rpctypes.ErrEmptyKey, func() error { _, err := c.Put(ctx, "", "x"); return err }},
		{rpctypes.ErrLeaseNotFound, func() error { _, err := c.Put(ctx, p+"a", "x", clientv3.WithLease(99)); return err }},
		{rpctypes.ErrLeaseNotFound, func() error { _, err := c.Revoke(ctx, 99); return err }},
		{rpctypes.ErrLeaseTTLTooLarge, func() error { _, err := c.Grant(ctx, 9_000_000_001); return err }},
		{rpctypes.ErrKeyNotFound, func() error { _, err := c.Put(ctx, p+"none", "", clientv3.WithIgnoreValue()); return err }},
		{rpctypes.ErrFutureRev, func() error { _, err := c.Get(ctx, p+"a", clientv3.WithRev(1<<40)); return err }},
		{rpctypes.ErrTooManyOps, func() error { _, err := c.Txn(ctx).Then(many...).Commit(); return err }},
		{rpctypes.ErrDuplicateKey, func() error {
			_, err := c.Txn(ctx).Then(clientv3.OpPut(p+"a", "1"), clientv3.OpPut(p+"a", "2")).Commit()
			return err
		}},
		{rpctypes.ErrRequestTooLarge, func() error { _, err := c.Put(ctx, p+"a", strings.Repeat("v", 1600<<10)); return err }},
		{rpctypes.ErrAuthNotEnabled, func() error { _, err := c.Authenticate(ctx, "root", "x"); return err }},
		{rpctypes.ErrRootUserNotExist, func() error { _, err := c.AuthEnable(ctx); return err }},
		{rpctypes.ErrUserNotFound, func() error { _, err := c.UserGet(ctx, "nobody"); return err }},
	} {
		if err := q.run(); !errors.Is(err, q.want) {
			return fmt.Errorf("got %v, want %v", err, q.want)
		}
	}
	status, err := c.AuthStatus(ctx)
	if err != nil {
		return err
	}
	return want(!status.Enabled, "auth is %v", status)
}

func stm(ctx context.Context, c *clientv3.Client, p string) error {
	const workers, each = 4, 10
	failed := make(chan error, workers)
	for range workers {
		go func() {
			for range each {
				_, err := concurrency.NewSTM(c, func(s concurrency.STM) error {
					n := 0
					_, _ = fmt.Sscan(s.Get(p+"n"), &n)
					s.Put(p+"n", fmt.Sprint(n+1))
					return nil
				}, concurrency.WithAbortContext(ctx))
				if err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
	}
	for range workers {
		if err := <-failed; err != nil {
			return err
		}
	}
	got, err := c.Get(ctx, p+"n")
	if err != nil {
		return err
	}
	return want(keys(got) == fmt.Sprintf("n=%d", workers*each), "counted %s", keys(got))
}
