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
    shown: Option<(PodStatus, bool)>,
}

impl Slot {
    pub fn new(pod: Arc<Pod>, removed: bool) -> Arc<Slot> {
        let slot = Slot {
            wake: Arc::default(),
            stopping: Scope::new(),
            inner: Mutex::new(Inner { pod: pod.clone(), removed, shown: None }),
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
        self.inner.lock().pod = pod;
        if stop {
            self.stopping.cancel();
        }
        self.wake.notify_one();
    }

    pub fn remove(&self) {
        self.inner.lock().removed = true;
        self.stopping.cancel();
        self.wake.notify_one();
    }

    /// What was last shown, and whether the pod has ended for good.
    pub fn shown(&self) -> Option<(PodStatus, bool)> {
        self.inner.lock().shown.clone()
    }

    pub fn show(&self, status: &PodStatus, terminated: bool) {
        self.inner.lock().shown = Some((status.clone(), terminated));
    }
}
