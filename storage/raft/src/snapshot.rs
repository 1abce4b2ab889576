//! Snapshots between replicas: pages of a pinned view, each acknowledged.
//!
//! ```text
//!   sender                         receiver
//!     Offer{header} ────────────►
//!              ◄──────────────── Resume{after}     (pages it has from before)
//!     Page ─────────────────────►
//!              ◄──────────────── Next
//!     End ──────────────────────►  install
//!              ◄──────────────── Done{vote}
//! ```
//!
//! Both ends give up when nothing comes for a while; there is no total
//! deadline. A transfer that broke is taken up where it was, as long as the
//! sender still has that view. A replica whose checkpoint was lost asks for one
//! with `Pull` before it starts.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use openraft::AsyncRuntime;
use serde::{Deserialize, Serialize};
use triarch_env::Env;
use triarch_mvcc::{AppliedAt, Header, Import, Key, Limits, Object, Pin, Stored};

use crate::checkpointer::{Checkpointer, log_rec};
use crate::codec::{self, LogRec, StoredMembershipRec, VoteRec};
use crate::config::Timers;
use crate::counters::add;
use crate::levels;
use crate::node::Raft;
use crate::shared::Shared;
use crate::transport::{Lane, Message, Peer, PeerStream, PeerTransport};
use crate::types::{LogId, SnapshotMeta, Vote};
use crate::wire::Snap;

/// Objects in one page.
const PAGE_ITEMS: usize = 4096;

/// A view of one entry's state.
pub(crate) struct Pinned {
    pub pin: Pin,
    pub header: Header,
    pub membership: StoredMembershipRec,
}

/// A state that is being received, or has been.
pub(crate) struct Received {
    pub header: Header,
    pub membership: StoredMembershipRec,
    pub import: Import,
    last: Option<Key>,
}

/// What openraft calls the snapshot's data.
pub(crate) enum SnapshotData {
    /// This replica's own, to be sent.
    Pinned(Arc<Pinned>),
    /// A peer's, to be installed.
    Received(Box<Received>),
}

/// The header as it travels.
#[derive(Serialize, Deserialize)]
struct HeaderRec {
    applied: LogRec,
    revision: u64,
    floor: u64,
    chain: [u8; 32],
    dedup: Bytes,
    membership: StoredMembershipRec,
}

type ObjectRec = (Key, Object, u64, u64);

fn encode_header(header: &Header, membership: &StoredMembershipRec) -> Bytes {
    codec::encode(&HeaderRec {
        applied: log_rec(header),
        revision: header.revision,
        floor: header.floor,
        chain: header.chain,
        dedup: header.dedup.clone(),
        membership: membership.clone(),
    })
}

impl Received {
    fn begin(limits: &Limits, header: Bytes) -> Result<Received, String> {
        let rec: HeaderRec = codec::decode("a snapshot header", &header).map_err(|e| e.to_string())?;
        let LogRec { term, node, index } = rec.applied;
        let header = Header {
            applied: AppliedAt { index, term, node },
            revision: rec.revision,
            floor: rec.floor,
            chain: rec.chain,
            dedup: rec.dedup,
        };
        let import = Import::new(limits.clone(), &header).map_err(|e| e.to_string())?;
        Ok(Received { header, membership: rec.membership, import, last: None })
    }

    fn page(&mut self, payloads: &[Bytes]) -> Result<(), String> {
        for payload in payloads {
            let objects: Vec<ObjectRec> = codec::decode("a snapshot page", payload).map_err(|e| e.to_string())?;
            for (key, object, create_revision, mod_revision) in objects {
                self.last = Some(key.clone());
                let stored = Stored { key, object, create_revision, mod_revision };
                self.import.add(stored).map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }
}

/// One end of a transfer.
struct Talk<'a> {
    env: &'a Env,
    stream: PeerStream,
    stall: Duration,
}

impl Talk<'_> {
    async fn say(&mut self, snap: &Snap, payloads: Vec<Bytes>) -> Result<(), String> {
        let message = Message { body: codec::encode(snap), payloads };
        let sent = self.env.timeout(self.stall, self.stream.tx.send(message)).await;
        sent.map_err(|_| self.silent())?.map_err(|_| broke())
    }

    async fn hear(&mut self) -> Result<(Snap, Vec<Bytes>), String> {
        let heard = self.env.timeout(self.stall, self.stream.rx.recv()).await.map_err(|_| self.silent())?;
        let message = heard.ok_or_else(broke)?;
        match codec::decode("a snapshot message", &message.body).map_err(|e| e.to_string())? {
            Snap::Failed(why) => Err(format!("the peer gave up: {why}")),
            snap => Ok((snap, message.payloads)),
        }
    }

    fn silent(&self) -> String {
        format!("nothing from the peer for {:?}", self.stall)
    }
}

fn broke() -> String {
    "the stream broke".into()
}

fn unexpected(snap: &Snap) -> String {
    format!("unexpected message {snap:?}")
}

/// Sends this replica's snapshot to a peer; returns the peer's vote.
pub(crate) async fn send(
    shared: &Shared,
    checkpointer: &Arc<Checkpointer>,
    peer: &Peer,
    vote: Option<VoteRec>,
    data: &SnapshotData,
) -> Result<VoteRec, String> {
    let SnapshotData::Pinned(pinned) = data else { return Err("not a snapshot of this replica's own".into()) };
    let timers = &shared.config.timers;
    let opened = shared.env.timeout(timers.connect, shared.transport.open(peer, Lane::Snapshot)).await;
    let stream =
        opened.map_err(|_| format!("no connection within {:?}", timers.connect))?.map_err(|e| e.to_string())?;
    let talk = Talk { env: &shared.env, stream, stall: timers.snapshot_stall };
    push(shared, checkpointer, talk, vote, pinned).await
}

async fn push(
    shared: &Shared,
    checkpointer: &Arc<Checkpointer>,
    mut talk: Talk<'_>,
    vote: Option<VoteRec>,
    pinned: &Arc<Pinned>,
) -> Result<VoteRec, String> {
    let _sending = checkpointer.send_begins(pinned);
    talk.say(&Snap::Offer { vote, header: encode_header(&pinned.header, &pinned.membership) }, Vec::new()).await?;
    let mut after = match talk.hear().await?.0 {
        Snap::Resume { after: None } => None,
        Snap::Resume { after: Some(key) } => Some(Key::from_bytes(key).ok_or("not a key")?),
        other => return Err(unexpected(&other)),
    };
    let bytes = shared.config.limits.snapshot_page_bytes;
    loop {
        let page = pinned.pin.page(after.as_ref(), PAGE_ITEMS, bytes);
        let Some(last) = page.last().map(|s| s.key.clone()) else { break };
        let records: Vec<ObjectRec> =
            page.into_iter().map(|s| (s.key, s.object, s.create_revision, s.mod_revision)).collect();
        talk.say(&Snap::Page { last: last.as_bytes().clone() }, vec![codec::encode(&records)]).await?;
        match talk.hear().await?.0 {
            Snap::Next => {}
            other => return Err(unexpected(&other)),
        }
        after = Some(last);
    }
    talk.say(&Snap::End, Vec::new()).await?;
    loop {
        match talk.hear().await?.0 {
            // Still installing.
            Snap::Next => {}
            Snap::Done { vote } => {
                add(&shared.counters.snapshots_sent, 1);
                return Ok(vote);
            }
            other => return Err(unexpected(&other)),
        }
    }
}

/// Takes pages until the end of the offer.
async fn receive(talk: &mut Talk<'_>, received: &mut Received, pages: Option<&AtomicU64>) -> Result<(), String> {
    let after = received.last.as_ref().map(|k| k.as_bytes().clone());
    talk.say(&Snap::Resume { after }, Vec::new()).await?;
    loop {
        match talk.hear().await? {
            (Snap::Page { .. }, payloads) => {
                received.page(&payloads)?;
                pages.into_iter().for_each(|p| add(p, 1));
                talk.say(&Snap::Next, Vec::new()).await?;
            }
            (Snap::End, _) => return Ok(()),
            (other, _) => return Err(unexpected(&other)),
        }
    }
}

/// Serves one stream of the snapshot lane.
pub(crate) async fn serve<R: AsyncRuntime>(
    shared: &Shared,
    checkpointer: &Arc<Checkpointer>,
    raft: &Raft<R>,
    stream: PeerStream,
) {
    let tx = stream.tx.clone();
    let mut talk = Talk { env: &shared.env, stream, stall: shared.config.timers.snapshot_stall };
    let done = async {
        match talk.hear().await?.0 {
            Snap::Offer { vote: Some(vote), header } => accept(shared, checkpointer, raft, talk, vote, header).await,
            Snap::Pull { from } => {
                let pinned = checkpointer.view(from).ok_or("there is no checkpoint here")?;
                let reaches = pinned.header.applied.index;
                if reaches < from {
                    // It follows the floor, which is beyond: a little later it will do.
                    return Err(format!("the checkpoint here reaches to entry {reaches} only, not yet to {from}"));
                }
                push(shared, checkpointer, talk, None, &pinned).await.map(drop)
            }
            other => Err(unexpected(&other)),
        }
    };
    if let Err(why) = done.await {
        tracing::warn!(why, "a snapshot transfer failed");
        let body = codec::encode(&Snap::Failed(why));
        let _ = tx.try_send(Message { body, payloads: Vec::new() });
    }
}

/// Receives what the leader offers and lets openraft install it.
async fn accept<R: AsyncRuntime>(
    shared: &Shared,
    checkpointer: &Arc<Checkpointer>,
    raft: &Raft<R>,
    mut talk: Talk<'_>,
    vote: VoteRec,
    header: Bytes,
) -> Result<(), String> {
    let Ok(mut slot) = checkpointer.receiving.try_lock() else {
        return Err("another snapshot is being received".into());
    };
    let offered = Received::begin(&shared.config.mvcc, header)?;
    // The same state as that of a transfer that broke: it goes on from there.
    let same = slot.as_ref().is_some_and(|r| r.header == offered.header);
    let received = if same { slot.as_mut() } else { None };
    let received = match received {
        Some(r) => r,
        None => slot.insert(offered),
    };
    if received.last.is_some() {
        add(&shared.counters.snapshots_resumed, 1);
    }
    receive(&mut talk, received, Some(&shared.counters.snapshot_pages_received)).await?;
    let received = slot.take().ok_or("received nothing")?;
    levels::admit(shared, received.import.feature_level()).map_err(|e| e.to_string())?;
    let meta = SnapshotMeta {
        last_log_id: Some(LogId::from(log_rec(&received.header))),
        last_membership: received.membership.clone().try_into().map_err(|e: codec::CodecError| e.to_string())?,
    };
    let snapshot = openraft::Snapshot { meta, snapshot: SnapshotData::Received(Box::new(received)) };
    let mut installing = Box::pin(raft.install_full_snapshot(Vote::from(vote), snapshot));
    // Signs of life, since writing a large checkpoint takes longer than a peer waits for a page.
    let answer = loop {
        match shared.env.timeout(talk.stall / 4, &mut installing).await {
            Ok(answer) => break answer.map_err(|e| e.to_string())?,
            Err(_) => talk.say(&Snap::Next, Vec::new()).await?,
        }
    };
    talk.say(&Snap::Done { vote: (&answer.vote).into() }, Vec::new()).await
}

/// Asks a peer for its checkpoint, which must reach to entry `from`, before this
/// replica runs. A peer that does not answer soon is given up: another may.
pub(crate) async fn pull(
    env: &Env,
    transport: &dyn PeerTransport,
    peer: &Peer,
    from: u64,
    timers: &Timers,
    limits: &Limits,
) -> Result<Received, String> {
    let (connect, stall) = (timers.connect, timers.snapshot_stall);
    let opened = env.timeout(connect, transport.open(peer, Lane::Snapshot)).await;
    let stream = opened.map_err(|_| format!("no connection within {connect:?}"))?.map_err(|e| e.to_string())?;
    let mut talk = Talk { env, stream, stall: timers.call };
    talk.say(&Snap::Pull { from }, Vec::new()).await?;
    let mut received = match talk.hear().await?.0 {
        Snap::Offer { header, .. } => Received::begin(limits, header)?,
        other => return Err(unexpected(&other)),
    };
    let reaches = received.header.applied.index;
    if reaches < from {
        return Err(format!("its checkpoint reaches to entry {reaches}, not to {from}"));
    }
    talk.stall = stall;
    receive(&mut talk, &mut received, None).await?;
    talk.say(&Snap::Done { vote: VoteRec { term: 0, node: 0, committed: false } }, Vec::new()).await?;
    Ok(received)
}
