//! The registry: what every verb shares. The verbs are in files of their own.
//!
//! Owns no state but the door to the store; every replica may have its own.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use triarch_api::names;
use triarch_api::status::Status;
use triarch_env::Env;
use triarch_mvcc::{CommitError, Db, Guard, Key, Mvcc, Object, Op, Prefix, Revision, Stored, Txn, TxnOutcome};

use crate::ext::Bindings;
use crate::{Admission, Issuer, Kind, KindTable, RequestContext, RuleContext, Target, Virtual, err};

/// How often a write is evaluated again after somebody else's write came first.
pub(crate) const MAX_ATTEMPTS: usize = 16;
/// How long a read waits for a revision that this replica has not reached.
const REVISION_WAIT: Duration = Duration::from_secs(3);

/// The verbs over a table of kinds.
pub struct Registry {
    pub(crate) db: Arc<dyn Db>,
    pub(crate) env: Env,
    pub(crate) kinds: KindTable,
    pub(crate) admission: Arc<dyn Admission>,
    issuer: OnceLock<Arc<dyn Issuer>>,
    virtuals: OnceLock<Vec<Arc<dyn Virtual>>>,
    this: Weak<Registry>,
}

/// What a commit did with the guards of one object's write.
pub(crate) enum Outcome {
    /// Done; the revision of the first operation.
    Done(Revision),
    /// A guard did not hold; `own` when it was the object's own (the first).
    Lost { own: bool },
}

impl Registry {
    pub fn new(db: Arc<dyn Db>, env: Env, kinds: KindTable, admission: Arc<dyn Admission>) -> Arc<Registry> {
        Arc::new_cyclic(|this| Registry {
            db,
            env,
            kinds,
            admission,
            issuer: OnceLock::new(),
            virtuals: OnceLock::new(),
            this: this.clone(),
        })
    }

    pub fn kinds(&self) -> &KindTable {
        &self.kinds
    }

    pub fn db(&self) -> &Arc<dyn Db> {
        &self.db
    }

    pub fn env(&self) -> &Env {
        &self.env
    }

    pub fn mvcc(&self) -> &Arc<Mvcc> {
        self.db.mvcc()
    }

    pub fn admission(&self) -> &Arc<dyn Admission> {
        &self.admission
    }

    /// Set once, before serving; later calls are ignored.
    pub fn set_issuer(&self, issuer: Arc<dyn Issuer>) {
        let _ = self.issuer.set(issuer);
    }

    /// Set once, before serving; later calls are ignored.
    pub fn set_virtuals(&self, virtuals: Vec<Arc<dyn Virtual>>) {
        let _ = self.virtuals.set(virtuals);
    }

    pub(crate) fn issuer(&self) -> Result<&Arc<dyn Issuer>, Status> {
        self.issuer.get().ok_or_else(|| err::internal("this server issues no tokens"))
    }

    pub(crate) fn virtual_for(&self, kind: &'static Kind) -> Option<Arc<dyn Virtual>> {
        let given = self.virtuals.get().and_then(|all| all.iter().find(|v| v.answers(kind)).cloned());
        given.or_else(|| Some(Arc::new(Bindings(self.this.upgrade()?)) as Arc<dyn Virtual>).filter(|b| b.answers(kind)))
    }

    pub(crate) fn rules<'a>(&'a self, ctx: &'a RequestContext, subresource: Option<&'a str>) -> RuleContext<'a> {
        RuleContext { env: &self.env, now: self.env.wall(), store: self.mvcc(), user: &ctx.user.name, subresource }
    }

    /// The kind whose schema the store of `kind` keeps.
    pub(crate) fn storage_kind(&self, kind: &'static Kind) -> &'static Kind {
        if kind.to_storage.is_none() { kind } else { self.kinds.by_resource(kind.resource).unwrap_or(kind) }
    }

    pub(crate) fn key(&self, target: &Target<'_>) -> Result<Key, Status> {
        let messages = names::path_segment(target.name);
        if !messages.is_empty() {
            let why = messages.join(";");
            return Err(err::bad_request(format!("Name parameter invalid: {:?}: {why}", target.name)));
        }
        if target.name.contains('\0') || target.namespace.contains('\0') {
            return Err(err::not_found(target.kind, &target.name.replace('\0', "")));
        }
        Ok(Key::new(target.kind.resource, target.namespace, target.name))
    }

    pub(crate) fn prefix(&self, target: &Target<'_>) -> Prefix {
        Prefix {
            resource: target.kind.resource.into(),
            namespace: (target.kind.namespaced() && !target.namespace.is_empty()).then(|| target.namespace.into()),
            name: None,
        }
    }

    /// A linearizable read point.
    pub(crate) async fn barrier(&self) -> Result<Revision, Status> {
        self.db.read_barrier().await.map_err(|e| err::commit(&e))
    }

    /// Waits until this replica has reached `revision`: 504 when it does not in time.
    pub(crate) async fn reach(&self, revision: Revision) -> Result<(), Status> {
        if self.mvcc().revision() >= revision || self.db.wait_revision(revision, REVISION_WAIT).await {
            return Ok(());
        }
        Err(Status::too_large_rv(revision, self.mvcc().revision(), 1))
    }

    /// Reads for `resourceVersion` as get and list take it: absent is
    /// linearizable, 0 is what this replica has, a number is not older than it.
    pub(crate) async fn settle(&self, revision: Option<Revision>) -> Result<(), Status> {
        match revision {
            None => self.barrier().await.map(drop),
            Some(n) => self.reach(n).await,
        }
    }

    pub(crate) fn stored(&self, target: &Target<'_>) -> Result<Option<Stored>, Status> {
        Ok(self.mvcc().get(&self.key(target)?))
    }

    /// Proposes `op` under `guard`, together with what allocation joined to it.
    pub(crate) async fn propose(
        &self,
        ctx: &RequestContext,
        guard: Guard,
        op: Op,
        joined: Txn,
    ) -> Result<Outcome, Status> {
        let (own, wanted) = (guard.clone(), op.clone());
        let mut txn = Txn { guards: vec![guard], ops: vec![op], epoch: ctx.epoch };
        txn.guards.extend(joined.guards);
        txn.ops.extend(joined.ops);
        let committed = self.db.commit(txn).await.map_err(|e| err::commit(&e))?;
        match committed.outcome {
            TxnOutcome::Committed { revisions } => {
                Ok(Outcome::Done(revisions.first().copied().unwrap_or(committed.revision)))
            }
            TxnOutcome::GuardFailed { index, .. } => Ok(Outcome::Lost { own: index == 0 }),
            TxnOutcome::Fenced => {
                let epoch = ctx.epoch.unwrap_or(triarch_mvcc::Epoch { term: 0, node: 0 });
                Err(err::commit(&CommitError::Fenced(epoch)))
            }
            TxnOutcome::Expired => self.aftermath(&own, &wanted).await,
            TxnOutcome::Facade(_) => Err(err::internal("the store answered a write of another kind")),
            TxnOutcome::TooLarge => {
                Err(Status::request_too_large("the object and what its write changes exceed the store's limits"))
            }
        }
    }

    /// What became of a write whose outcome the store has forgotten (it was
    /// tried again for longer than outcomes are kept). It is decided by now, so
    /// the object itself tells: uids and revisions make states comparable.
    async fn aftermath(&self, guard: &Guard, op: &Op) -> Result<Outcome, Status> {
        let head = self.barrier().await?;
        let key = guard.key();
        let found = self.mvcc().get(key);
        let done = match (op, &found) {
            (Op::Put(_, object), Some(stored)) if stored.object.bytes == object.bytes => Some(stored.mod_revision),
            (Op::Delete(_), None) => Some(head),
            _ => None,
        };
        if let Some(revision) = done {
            return Ok(Outcome::Done(revision));
        }
        let untouched = match guard {
            Guard::Absent(_) => found.is_none(),
            Guard::ModRevision(_, revision) => found.is_some_and(|s| s.mod_revision == *revision),
            _ => false,
        };
        // Untouched: it was never made, and may be tried again. Otherwise
        // somebody's write came since, which is what a lost race is.
        Ok(Outcome::Lost { own: !untouched })
    }

    pub(crate) fn put(key: &Key, object: Object) -> Op {
        Op::Put(key.clone(), object)
    }
}
