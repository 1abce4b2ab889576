//! The feed, one turn at a time.

use std::pin::pin;

use futures::poll;
use serde_json::json;

use super::*;
use crate::testing::FakeApi;
use crate::{DeleteOptions, Op, Writer, resources};

/// Names of the ConfigMaps that listeners were told of.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Listener for Told {
    fn changed(&self, _: &World, changes: &[Change]) {
        let names = changes.iter().filter(|c| c.resource == resources::CONFIG_MAPS).map(|c| c.name.name.to_string());
        self.0.lock().extend(names);
    }
}

#[tokio::test]
async fn work_begins_before_what_is_known_by_its_uid_alone_is_listed_and_nothing_of_that_is_missed() {
    const MANY: usize = 3 * PAGE;
    let api = FakeApi::new();
    let config_map = |name: String| json!({"metadata": {"name": name, "namespace": "d"}});
    for n in 0..MANY {
        api.create(resources::CONFIG_MAPS, config_map(format!("c{n:04}"))).await;
    }
    api.create(resources::PODS, json!({"metadata": {"name": "p", "namespace": "d"}})).await;
    let uid = |name: &str| api.get(resources::CONFIG_MAPS, "d", name).unwrap()["metadata"]["uid"].to_string();
    let uid = |name: &str| uid(name).trim_matches('"').to_owned();
    let told = Arc::new(Told::default());
    let feed =
        Feed::new(api.mvcc().clone(), vec![resources::CONFIG_MAPS, resources::PODS], vec![told.clone() as Arc<_>]);
    let mut run = pin!(feed.run());
    assert!(!feed.ready());
    assert!(poll!(run.as_mut()).is_pending());
    assert!(feed.ready() && feed.world().pods.get(&Name::new("d", "p")).is_some());
    let (first, last) = (uid("c0000"), uid(&format!("c{:04}", MANY - 1)));
    assert_eq!(told.0.lock().len(), PAGE, "a page of them is in");
    assert!(feed.world().alive(&first) && !feed.world().alive(&last));

    // One that is listed already goes, one that is not listed yet goes, and one comes.
    for name in ["c0000".to_owned(), format!("c{:04}", MANY - 1)] {
        let (name, options) = (Name::new("d", &name), DeleteOptions::default());
        api.write(&Op::Delete { resource: resources::CONFIG_MAPS, name, options }).await.unwrap();
    }
    api.create(resources::CONFIG_MAPS, config_map("late".into())).await;
    let deletes = |name: &str| told.0.lock().iter().filter(|n| *n == name).count();
    for _ in 0..20 {
        assert!(poll!(run.as_mut()).is_pending());
    }
    let world = feed.world();
    assert!(!world.alive(&first) && !world.alive(&last) && world.alive(&uid("late")));
    assert!(world.alive(&uid("c0001")) && world.revision == api.mvcc().revision());
    assert_eq!((deletes("c0000"), deletes("late")), (2, 1), "listed and deleted; created");
    assert_eq!(told.0.lock().iter().filter(|n| n.starts_with('c')).count(), MANY + 2);
}
