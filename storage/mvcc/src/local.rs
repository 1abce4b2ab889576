//! The store's door over one memory, without a log: for tests of what stands above.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{CommitError, Committed, Db, Limits, Mvcc, Revision, Txn};

/// A [`Db`] that applies at once and accepts every epoch.
#[derive(Debug)]
pub struct LocalDb {
    mvcc: Arc<Mvcc>,
}

impl LocalDb {
    pub fn new(limits: Limits) -> Arc<LocalDb> {
        Arc::new(LocalDb { mvcc: Mvcc::new(Limits { exports: false, ..limits }) })
    }
}

#[async_trait]
impl Db for LocalDb {
    async fn commit(&self, txn: Txn) -> Result<Committed, CommitError> {
        let (outcome, revision) = self.mvcc.apply_local(&txn);
        Ok(Committed { outcome, revision })
    }

    async fn read_barrier(&self) -> Result<Revision, CommitError> {
        Ok(self.mvcc.revision())
    }

    /// There is no clock here, so a revision that has not happened counts as
    /// timed out at once.
    async fn wait_revision(&self, revision: Revision, _timeout: Duration) -> bool {
        self.mvcc.revision() >= revision
    }

    fn mvcc(&self) -> &Arc<Mvcc> {
        &self.mvcc
    }
}
