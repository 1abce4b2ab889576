package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// Sessions that compete, and how long a dead one's place stays taken.
const (
	sessions = 5
	ttl      = 4
)

// A session that does not know what became of its last step ends: what it may
// have left goes with its lease.
var errAway = errors.New("not the holder, or not known")

// figures counts what competing sessions did.
type figures struct {
	held, lost, unknown, restarts, violations atomic.Int64
	why                                       atomic.Value
}

func (f *figures) violated(format string, args ...any) {
	f.violations.Add(1)
	f.why.Store(fmt.Sprintf(format, args...))
}

// hold is what a holder does: with owner as the proof that it still is one, it
// says that it is inside, counts, and says that it is outside again. Another
// who is inside, a count that somebody changed meanwhile, or an older holder
// after a younger one would show two at once. The fence is the revision by
// which the place was taken: it only rises.
func (f *figures) hold(ctx context.Context, c *clientv3.Client, s *concurrency.Session, p string, owner clientv3.Cmp, fence int64) error {
	inside, count, last := p+"inside", p+"count", p+"fence"
	step := func(ifs []clientv3.Cmp, then ...clientv3.Op) *clientv3.TxnResponse {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		r, err := c.Txn(ctx).If(append(ifs, owner)...).Then(then...).Else(
			clientv3.OpTxn([]clientv3.Cmp{owner}, []clientv3.Op{clientv3.OpGet(p, clientv3.WithPrefix())}, nil)).Commit()
		if err != nil {
			f.unknown.Add(1)
			return nil
		}
		if !r.Succeeded {
			// Not the holder any more is a session that ended; a holder whom something else stops is not.
			if r.Responses[0].GetResponseTxn().Succeeded {
				f.violated("the holder with fence %d found %v", fence, r.Responses[0])
			} else {
				f.lost.Add(1)
			}
			return nil
		}
		return r
	}
	me := fmt.Sprintf("%x", s.Lease())
	entered := step([]clientv3.Cmp{clientv3.Compare(clientv3.Version(inside), "=", 0)},
		clientv3.OpPut(inside, me, clientv3.WithLease(s.Lease())), clientv3.OpGet(count), clientv3.OpGet(last))
	if entered == nil {
		return errAway
	}
	n, before := int64(0), int64(0)
	changed := clientv3.Compare(clientv3.ModRevision(count), "=", 0)
	if kvs := entered.Responses[1].GetResponseRange().Kvs; len(kvs) > 0 {
		_, _ = fmt.Sscan(string(kvs[0].Value), &n)
		changed = clientv3.Compare(clientv3.ModRevision(count), "=", kvs[0].ModRevision)
	}
	if kvs := entered.Responses[2].GetResponseRange().Kvs; len(kvs) > 0 {
		_, _ = fmt.Sscan(string(kvs[0].Value), &before)
	}
	if before >= fence {
		f.violated("fence %d came after %d", fence, before)
	}
	time.Sleep(20 * time.Millisecond)
	mine := clientv3.Compare(clientv3.Value(inside), "=", me)
	if step([]clientv3.Cmp{changed, mine},
		clientv3.OpPut(count, fmt.Sprint(n+1)), clientv3.OpPut(last, fmt.Sprint(fence))) == nil {
		return errAway
	}
	if step([]clientv3.Cmp{mine}, clientv3.OpDelete(inside)) == nil {
		return errAway
	}
	f.held.Add(1)
	return nil
}

// compete runs sessions until the time is up; take takes the place once.
func compete(ctx context.Context, name string, take func(context.Context, *figures, *clientv3.Client, *concurrency.Session, string, int) error) (string, error) {
	p := "go/" + name + "/"
	cleaner, err := connect()
	if err != nil {
		return "", err
	}
	defer cleaner.Close()
	if _, err := cleaner.Delete(ctx, p, clientv3.WithPrefix()); err != nil {
		return "", err
	}
	var f figures
	end := time.Now().Add(time.Duration(*seconds) * time.Second)
	done := make(chan error, sessions)
	for i := range sessions {
		go func() { done <- f.competitor(ctx, end, p, i, take) }()
	}
	for range sessions {
		if err := <-done; err != nil {
			return "", err
		}
	}
	r, err := cleaner.Get(ctx, p+"count")
	if err != nil {
		return "", err
	}
	counted := int64(0)
	if len(r.Kvs) > 0 {
		_, _ = fmt.Sscan(string(r.Kvs[0].Value), &counted)
	}
	said := fmt.Sprintf("held=%d counted=%d lost=%d unknown=%d restarts=%d violations=%d",
		f.held.Load(), counted, f.lost.Load(), f.unknown.Load(), f.restarts.Load(), f.violations.Load())
	switch {
	case f.violations.Load() > 0:
		return "", fmt.Errorf("%s: %v", said, f.why.Load())
	case counted < f.held.Load() || counted > f.held.Load()+f.lost.Load()+f.unknown.Load():
		return "", fmt.Errorf("%s: the count is not what the holders did", said)
	case f.held.Load() < sessions:
		return "", fmt.Errorf("%s: hardly anybody held it", said)
	}
	return said, nil
}

func (f *figures) competitor(ctx context.Context, end time.Time, p string, i int, take func(context.Context, *figures, *clientv3.Client, *concurrency.Session, string, int) error) error {
	for turn := 0; time.Now().Before(end); turn++ {
		c, err := connect()
		if err != nil {
			return err
		}
		f.one(ctx, end, c, p, i+turn*sessions, take)
		_ = c.Close()
		f.restarts.Add(1)
	}
	return nil
}

// one is a session's life: it takes the place again and again until it fails.
func (f *figures) one(ctx context.Context, end time.Time, c *clientv3.Client, p string, n int, take func(context.Context, *figures, *clientv3.Client, *concurrency.Session, string, int) error) {
	open, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s, err := concurrency.NewSession(c, concurrency.WithTTL(ttl), concurrency.WithContext(ctx))
	if err != nil {
		<-open.Done()
		return
	}
	// Some sessions die without a word: the others wait for their leases to end.
	if n%4 == 3 {
		defer s.Orphan()
	} else {
		defer s.Close()
	}
	for turn := 0; turn < 8 && time.Now().Before(end); turn++ {
		waiting, cancel := context.WithTimeout(ctx, 12*time.Second)
		err := take(waiting, f, c, s, p, n+turn)
		cancel()
		if err != nil {
			return
		}
	}
}

func mutex(ctx context.Context) (string, error) {
	return compete(ctx, "mutex", func(ctx context.Context, f *figures, c *clientv3.Client, s *concurrency.Session, p string, n int) error {
		m := concurrency.NewMutex(s, p+"lock/")
		if err := m.Lock(ctx); err != nil {
			return err
		}
		got, err := c.Get(ctx, m.Key())
		if err != nil || len(got.Kvs) == 0 {
			return err
		}
		if err := f.hold(ctx, c, s, p, m.IsOwner(), got.Kvs[0].CreateRevision); err != nil {
			return err
		}
		if n%8 == 7 {
			return errors.New("dies with the lock")
		}
		return m.Unlock(ctx)
	})
}

func election(ctx context.Context) (string, error) {
	return compete(ctx, "election", func(ctx context.Context, f *figures, c *clientv3.Client, s *concurrency.Session, p string, n int) error {
		e := concurrency.NewElection(s, p+"seat/")
		if err := e.Campaign(ctx, fmt.Sprint(n)); err != nil {
			return err
		}
		owner := clientv3.Compare(clientv3.CreateRevision(e.Key()), "=", e.Rev())
		if err := f.hold(ctx, c, s, p, owner, e.Rev()); err != nil {
			return err
		}
		if n%8 == 7 {
			return errors.New("dies in the seat")
		}
		if err := e.Proclaim(ctx, fmt.Sprint(n, " again")); err != nil {
			return err
		}
		seat, err := e.Leader(ctx)
		if err == nil && seat.Kvs[0].CreateRevision < e.Rev() {
			f.violated("seat of revision %d seen after %d", seat.Kvs[0].CreateRevision, e.Rev())
		}
		return e.Resign(ctx)
	})
}
