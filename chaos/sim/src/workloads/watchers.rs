//! Watchers of several prefixes that go on where they were on another replica
//! when theirs is gone, and start over from a list when their history is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use triarch_mvcc::{Db, Event, FACADE_RESOURCE, ListRequest, Prefix, Revision};

use super::{accounts, leader, registers, unique};
use crate::history::WatchSpan;
use crate::log::Entry;
use crate::run::Run;

/// Batches that a watcher has not read yet; past it the replica's side waits.
const DEPTH: usize = 8;
const BATCH: usize = 64;
/// A watcher that heard nothing this long asks another replica.
const SILENCE: Duration = Duration::from_secs(3);

pub fn start(run: &Arc<Run>) {
    let one = Prefix { name: Some("k0".into()), ..Prefix::namespaced(registers::RESOURCE, "d") };
    let prefixes = [
        Prefix::resource(registers::RESOURCE),
        Prefix::namespaced(unique::RESOURCE, "d"),
        Prefix::resource(accounts::RESOURCE),
        one,
        Prefix::resource(leader::RESOURCE),
        Prefix::resource(FACADE_RESOURCE),
    ];
    for (n, prefix) in prefixes.into_iter().enumerate() {
        let r = run.clone();
        // Some read more slowly than others write.
        let lag = Duration::from_millis([0, 0, 20, 100, 700][n % 5]);
        run.client(async move { watcher(&r, format!("watcher-{n}"), prefix, lag).await });
    }
}

enum News {
    Events(Vec<Arc<Event>>, Revision),
    Compacted,
}

async fn watcher(run: &Run, name: String, prefix: Prefix, lag: Duration) {
    let mut after: Option<Revision> = None;
    while !run.load.is_cancelled() {
        let via = run.any();
        let from = match after {
            Some(after) => after,
            None => {
                let p = prefix.clone();
                let listed =
                    run.call(via, |db| async move { Some(db.mvcc().list(&ListRequest::all(p)).ok()?.revision) });
                let Ok(Some(revision)) = listed.await else {
                    run.think().await;
                    continue;
                };
                revision
            }
        };
        let mut span = WatchSpan {
            watcher: format!("{name} on r{via}"),
            prefix: prefix.clone(),
            after: from,
            seen: Vec::new(),
            progress: from,
        };
        let over = span_on(run, via, &mut span, lag).await;
        run.trace
            .line(|| format!("{name} r{via} saw {} events after {from}, up to {}", span.seen.len(), span.progress));
        after = (!over).then_some(span.progress);
        let history = if prefix.resource == FACADE_RESOURCE { &run.facade.history } else { &run.history };
        history.lock().watches.push(span);
    }
}

/// Watches on one replica until it ends; `true`: the history is gone, list again.
async fn span_on(run: &Run, via: u64, span: &mut WatchSpan, lag: Duration) -> bool {
    let (tx, mut rx) = mpsc::channel::<News>(DEPTH);
    let (prefix, after) = (span.prefix.clone(), span.after);
    let opened = run
        .call(via, move |db| async move {
            let mvcc = db.mvcc().clone();
            let Ok(mut watcher) = mvcc.watch(prefix, after) else { return None };
            Some(async move {
                // As a bookmark would say it: this replica may be behind the one before.
                let begun = News::Events(Vec::new(), watcher.progress());
                if tx.send(begun).await.is_err() {
                    return;
                }
                loop {
                    let news = match watcher.next(BATCH).await {
                        Ok(events) => News::Events(events, watcher.progress()),
                        Err(_) => News::Compacted,
                    };
                    let last = matches!(news, News::Compacted);
                    if tx.send(news).await.is_err() || last {
                        return;
                    }
                }
            })
        })
        .await;
    let pump = match opened {
        Err(_) => return false,
        Ok(None) => return true,
        Ok(Some(pump)) => pump,
    };
    let Some(up) = run.up(via) else { return false };
    up.process.spawn(pump);
    drop(up);
    loop {
        if run.load.is_cancelled() {
            return false;
        }
        match run.env.timeout(SILENCE, rx.recv()).await {
            Ok(Some(News::Events(events, progress))) => {
                for event in events {
                    span.seen.push((event.revision, Entry::of(&event)));
                }
                span.progress = progress;
            }
            Ok(Some(News::Compacted)) => return true,
            // The replica is gone, or silent: nothing is lost by asking another.
            Ok(None) | Err(_) => return false,
        }
        // Now and then somebody moves on although nothing forces it.
        if run.env.random_below(200) == 0 {
            return false;
        }
        if !lag.is_zero() {
            run.env.sleep(run.env.jitter(lag, 90)).await;
        }
    }
}
