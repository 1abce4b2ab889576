//! Three replicas, two nodes with containers, and the sample application:
//! what a user does first, and what must survive.
//!
//! The tests share one lab and run in order; each leaves it well. Where
//! containers cannot run all are skipped, with the reason. `E2E=part,part`
//! runs those whose names have a part.

mod kubectl;
mod node;
mod up;
mod user;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use triarch_lab::preflight::Preflight;
use triarch_lab::suite::{Outcome, Suite, Test};
use triarch_lab::{Binaries, Lab, LabOptions, Nodes, Options, PatchKind, Profile, Progress, sample, suite_tests};

const TESTS: &[Test<Lab>] = suite_tests! {
    the_sample_answers_through_its_service = answers;
    requests_reach_pods_on_both_nodes = both_nodes;
    a_pod_reaches_the_api_through_its_service_with_its_own_token_and_ca = node::api_from_a_pod;
    a_changed_configuration_reaches_running_pods = changed_configuration;
    a_rollout_replaces_every_pod_and_the_service_answers_all_the_while = rollout;
    a_pod_that_is_deleted_is_replaced = replaced;
    pods_and_services_outlive_their_agent = without_agent;
    pods_outlive_their_runtime_which_comes_back = node::without_containerd;
    pods_and_services_outlive_the_whole_control_plane = without_control_plane;
    the_leaders_death_is_no_ones_business = leader_dies;
    an_apply_during_which_the_leader_dies_is_made_whole_by_the_next = user::apply;
    a_rollout_a_scaling_and_an_undo_go_on_when_the_leader_dies = user::rollout;
    streams_through_survivors_go_on_and_those_through_the_dead_work_again_at_once = user::streams;
    describe_and_explain_say_what_there_is = user::describe;
    a_pods_host_port_answers_at_its_node_and_goes_with_it = node::host_port;
    the_api_service_leaves_out_a_replica_that_stays_away = node::api_endpoints;
    an_image_that_cannot_be_had_is_said_and_runs_once_it_is_there = node::missing_image;
};
/// Without the shared lab: nothing runs any more.
const AFTER: [&str; 2] = [
    "nothing_of_a_node_is_left_when_it_stops",
    "up_detaches_stops_on_request_and_is_removed_without_a_trace_even_after_a_crash",
];

fn main() -> ExitCode {
    Suite::main(run)
}

async fn run(suite: &mut Suite, dir: &TempDir) {
    let began = Instant::now();
    let mut lab = match start(dir.path()).await {
        Ok(Some(started)) => started,
        Ok(None) => {
            for name in TESTS.iter().map(|t| t.0).chain(AFTER) {
                suite.skip(name, "containers cannot run here");
            }
            return;
        }
        Err(why) => return suite.record("a_lab_starts", began, Err(why)),
    };
    suite.record("a_lab_starts", began, Ok(()));
    // After a failure: the next one does not suffer for it.
    let revive = async |lab: &mut Lab| {
        let _tried = lab.revive();
        let _waited = lab.cluster().wait_all_ready().await;
    };
    suite.run(TESTS, "E2E", &mut lab, revive).await;
    let began = Instant::now();
    suite.record(AFTER[0], began, nothing_left(lab));
    let began = Instant::now();
    suite.record(AFTER[1], began, up::whole_life());
}

async fn start(dir: &std::path::Path) -> Result<Option<Lab>, String> {
    let binaries = Binaries::obtain(Profile::Dev).map_err(|e| e.to_string())?;
    let preflight = Preflight::ask(&binaries.lab, dir).map_err(|e| e.to_string())?;
    if preflight.obstacle().is_some() || !preflight.missing.is_empty() {
        preflight.lines().iter().for_each(|l| println!("{l}"));
        return Ok(None);
    }
    let snapshotter = preflight.snapshotter;
    let cluster = Options { binaries: Some(binaries), ..Options::new(dir) };
    let options = LabOptions { cluster, nodes: Nodes::Real { count: 2, snapshotter }, sample: true };
    let lab = Lab::start(options, &Progress::quiet()).await.map_err(|e| e.to_string())?;
    Ok(Some(lab))
}

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn port(lab: &Lab) -> Result<u16, String> {
    lab.app().ok_or_else(|| "the sample has no listener".to_owned())
}

async fn page(lab: &Lab) -> Result<String, String> {
    sample::page(port(lab)?).await.map_err(text)
}

async fn settled(lab: &Lab) -> Outcome {
    let client = lab.client().map_err(text)?;
    sample::wait_available(&client, "default", "web", Duration::from_secs(60)).await.map_err(text)
}

/// Looks until `done`, or says what was seen last.
async fn until<F>(limit: Duration, mut look: impl FnMut() -> F) -> Outcome
where
    F: Future<Output = Outcome>,
{
    let end = Instant::now() + limit;
    loop {
        match look().await {
            Ok(()) => return Ok(()),
            Err(why) if Instant::now() >= end => return Err(why),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answers(lab: &mut Lab) -> Outcome {
    let page = page(lab).await?;
    check(page.starts_with("Hello from Triarch\npod web-"), || format!("{page:?}"))
}

async fn both_nodes(lab: &mut Lab) -> Outcome {
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let page = page(lab).await?;
        for node in ["n1", "n2"] {
            if page.contains(&format!("on node {node},")) {
                seen.insert(node);
            }
        }
    }
    check(seen.len() == 2, || format!("100 requests reached only {seen:?}"))
}

async fn changed_configuration(lab: &mut Lab) -> Outcome {
    reconfigure(lab, "Another text").await
}

/// Writes the ConfigMap and waits until every answer shows it: both agents
/// have then looked after their running pods.
async fn reconfigure(lab: &Lab, message: &str) -> Outcome {
    let client = lab.client().map_err(text)?;
    let patch = json!({"data": {"message": message}});
    client.patch("/api/v1/namespaces/default/configmaps/web", PatchKind::Merge, &patch).await.map_err(text)?;
    until(Duration::from_secs(90), || async {
        for _ in 0..40 {
            let page = page(lab).await?;
            check(page.starts_with(message), || format!("{page:?}"))?;
        }
        Ok(())
    })
    .await
}

async fn rollout(lab: &mut Lab) -> Outcome {
    let client = lab.client().map_err(text)?;
    let patch = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "web", "image": "web:2", "env": [{"name": "VERSION", "value": "2"}]}]}}}});
    client
        .patch("/apis/apps/v1/namespaces/default/deployments/web", PatchKind::Strategic, &patch)
        .await
        .map_err(text)?;
    let done = settled(lab);
    let mut done = std::pin::pin!(done);
    let (mut asked, mut failed) = (0, Vec::new());
    loop {
        let tick = std::pin::pin!(tokio::time::sleep(Duration::from_millis(20)));
        if let futures::future::Either::Left((outcome, _)) = futures::future::select(&mut done, tick).await {
            outcome?;
            break;
        }
        asked += 1;
        failed.extend(page(lab).await.err());
    }
    // The very last connection may still have gone to a pod that had just ended.
    let lab = &*lab;
    until(Duration::from_secs(5), || async {
        let page = page(lab).await?;
        check(page.contains("version 2"), || format!("{page:?}"))
    })
    .await?;
    // Pods that end take connections until the nodes know of it.
    check(failed.is_empty(), || format!("{} of {asked} requests failed: {:?}", failed.len(), failed.first()))
}

async fn replaced(lab: &mut Lab) -> Outcome {
    let client = lab.client().map_err(text)?;
    let pods = client.list("/api/v1/namespaces/default/pods?labelSelector=app%3Dweb").await.map_err(text)?;
    let name = pods.first().and_then(|p| p["metadata"]["name"].as_str()).ok_or("there is no pod")?;
    let path = format!("/api/v1/namespaces/default/pods/{name}");
    client.delete(&path).await.map_err(text)?;
    let gone = &client;
    until(Duration::from_secs(60), || async {
        match gone.get(&path).await {
            Err(e) if e.is_not_found() => Ok(()),
            other => Err(format!("pod {name} is still there: {:?}", other.map(|p| p["status"]["phase"].clone()))),
        }
    })
    .await?;
    settled(lab).await
}

async fn without_agent(lab: &mut Lab) -> Outcome {
    for node in lab.nodes() {
        node.kill_agent();
    }
    // The way into the node leads through its agent: asked from inside instead.
    let client = lab.client().map_err(text)?;
    let service = client.get("/api/v1/namespaces/default/services/web").await.map_err(text)?;
    let address = service["spec"]["clusterIP"].as_str().ok_or("no address")?.to_owned();
    for node in lab.nodes() {
        let mut command = node.command("busybox");
        command.args(["timeout", "5", "busybox", "wget", "-q", "-O", "-", &format!("http://{address}/")]);
        let out = command.output().map_err(text)?;
        let page = String::from_utf8_lossy(&out.stdout).into_owned();
        check(page.contains("pod web-"), || {
            format!("{}: {page:?} {}", node.name(), String::from_utf8_lossy(&out.stderr))
        })?;
    }
    let before = pods(&client).await?;
    lab.revive().map_err(text)?;
    let lab_ref = &*lab;
    until(Duration::from_secs(30), || async { page(lab_ref).await.map(drop) }).await?;
    reconfigure(lab, "Seen by the new agents").await?;
    settled(lab).await?;
    let after = pods(&client).await?;
    check(before == after, || format!("containers were not taken over: {before:?}, then {after:?}"))
}

/// Pods with their containers' ids and restarts.
async fn pods(client: &triarch_lab::KubeClient) -> Result<Vec<String>, String> {
    let list = client.list("/api/v1/namespaces/default/pods?labelSelector=app%3Dweb").await.map_err(text)?;
    let line = |p: &serde_json::Value| {
        let c = &p["status"]["containerStatuses"][0];
        format!("{} {} {}", p["metadata"]["name"], c["containerID"], c["restartCount"])
    };
    Ok(list.iter().map(line).collect())
}

async fn without_control_plane(lab: &mut Lab) -> Outcome {
    for i in 0..3 {
        lab.cluster().kill(i).map_err(text)?;
    }
    for _ in 0..20 {
        let page = page(lab).await?;
        check(page.contains("pod web-"), || format!("{page:?}"))?;
    }
    lab.cluster().restart_all().map_err(text)?;
    lab.cluster().wait_all_ready().await.map_err(text)?;
    reconfigure(lab, "Seen by the new replicas").await?;
    settled(lab).await
}

async fn leader_dies(lab: &mut Lab) -> Outcome {
    let client = lab.client().map_err(text)?;
    let leader = lab.cluster().leader().await.map_err(text)?.ok_or("there is no leader")?;
    lab.cluster().kill(leader).map_err(text)?;
    let patch = json!({"spec": {"replicas": 4}});
    let scale = || async {
        let path = "/apis/apps/v1/namespaces/default/deployments/web";
        client.patch(path, PatchKind::Merge, &patch).await.map(drop).map_err(text)
    };
    until(Duration::from_secs(10), scale).await?;
    settled(lab).await?;
    lab.cluster().restart(leader).map_err(text)?;
    lab.cluster().wait_ready(leader).await.map_err(text)
}

fn nothing_left(mut lab: Lab) -> Outcome {
    let prefixes: Vec<String> = lab.nodes().iter().map(triarch_lab::node::Node::cgroup_prefix).collect();
    let processes: Vec<_> = lab.nodes().iter().map(|n| n.state().process).collect();
    lab.stop();
    check(processes.iter().all(|p| !p.alive()), || "a node's processes are still there".into())?;
    for prefix in prefixes {
        let found =
            Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-name", &prefix]).output().map_err(text)?;
        check(found.stdout.is_empty(), || format!("left: {}", String::from_utf8_lossy(&found.stdout)))?;
    }
    Ok(())
}
