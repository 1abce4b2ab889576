//! Where a pod's worker is told what is wanted and where it shows what is.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use triarch_env::Scope;

use crate::model::{Pod, PodStatus};

/// One pod's place on the node; shared by its worker and the kubelet.
#[derive(Debug)]
pub struct Slot {
    inner: Mutex<Inner>,
    pub wake: Arc<Notify>,
    /// Ends when the pod is to stop, which interrupts whatever is being started.
    pub stopping: Scope,
}

#[derive(Debug)]
struct Inner {
    pod: Arc<Pod>,
    /// Gone from the assignment: stop it and say nothing.
    removed: bool,
    /// Assigned again while it was being stopped: to be started afterwards.
    again: Option<Arc<Pod>>,
    shown: Option<(PodStatus, bool)>,
}

impl Slot {
    pub fn new(pod: Arc<Pod>, removed: bool) -> Arc<Slot> {
        let slot = Slot {
            wake: Arc::default(),
            stopping: Scope::new(),
            inner: Mutex::new(Inner { pod: pod.clone(), removed, again: None, shown: None }),
        };
        if removed || pod.is_deleted() {
            slot.stopping.cancel();
        }
        Arc::new(slot)
    }

    pub fn get(&self) -> (Arc<Pod>, bool) {
        let inner = self.inner.lock();
        (inner.pod.clone(), inner.removed)
    }

    pub fn set(&self, pod: Arc<Pod>) {
        let stop = pod.is_deleted();
        {
            let mut inner = self.inner.lock();
            if inner.removed {
                inner.again = Some(pod);
                return;
            }
            inner.pod = pod;
        }
        if stop {
            self.stopping.cancel();
        }
        self.wake.notify_one();
    }

    pub fn remove(&self) {
        {
            let mut inner = self.inner.lock();
            inner.removed = true;
            inner.again = None;
        }
        self.stopping.cancel();
        self.wake.notify_one();
    }

    /// The pod to start in this one's place, once this one has ended.
    pub fn successor(&self) -> Option<Arc<Pod>> {
        self.inner.lock().again.take()
    }

    /// What was last shown, and whether the pod has ended for good.
    pub fn shown(&self) -> Option<(PodStatus, bool)> {
        self.inner.lock().shown.clone()
    }

    /// The pod holds nothing of the node any more: it ended, or it is going.
    pub fn is_over(&self) -> bool {
        let inner = self.inner.lock();
        let ended = inner.shown.as_ref().is_some_and(|(s, terminated)| *terminated || s.is_terminal());
        inner.removed || ended || inner.pod.status.is_terminal()
    }

    pub fn show(&self, status: &PodStatus, terminated: bool) {
        self.inner.lock().shown = Some((status.clone(), terminated));
    }
}
