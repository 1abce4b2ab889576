//! Maintenance, Cluster and Auth, and what is refused, as an etcd client meets them.

mod common;

use std::sync::Arc;

use common::Alone;
use tonic::transport::Channel;
use tonic::{Code, Status};
use triarch_etcd::etcdserverpb::auth_client::AuthClient;
use triarch_etcd::etcdserverpb::cluster_client::ClusterClient;
use triarch_etcd::etcdserverpb::kv_client::KvClient;
use triarch_etcd::etcdserverpb::maintenance_client::MaintenanceClient;
use triarch_etcd::etcdserverpb::*;
use triarch_etcd::{ClusterMember, ETCD_VERSION};
use triarch_mvcc::{Db, Limits, LocalDb, Op, Txn};

async fn put(kv: &mut KvClient<Channel>, key: &str, value: &str) {
    let put = PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
    kv.put(put).await.unwrap();
}

async fn hash(m: &mut MaintenanceClient<Channel>, revision: i64) -> Result<(u32, i64, i64), Status> {
    let r = m.hash_kv(HashKvRequest { revision }).await?.into_inner();
    Ok((r.hash, r.compact_revision, r.hash_revision))
}

#[tokio::test]
async fn a_replica_says_how_it_is_and_that_there_are_no_alarms() {
    let channel = common::serve(LocalDb::new(Limits::default()), Alone::default()).await;
    let mut m = MaintenanceClient::new(channel.clone());
    let s = m.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((s.version.as_str(), s.leader, s.raft_term), (ETCD_VERSION, 9, 3));
    assert_eq!((s.raft_index, s.raft_applied_index, s.db_size, s.is_learner), (12, 11, 4096, false));
    assert!(s.errors.is_empty() && s.header.unwrap().member_id == 9);
    assert!(m.alarm(AlarmRequest::default()).await.unwrap().into_inner().alarms.is_empty());
    m.defragment(DefragmentRequest {}).await.unwrap();
    let mut auth = AuthClient::new(channel);
    assert!(!auth.auth_status(AuthStatusRequest {}).await.unwrap().into_inner().enabled);
    assert!(auth.user_list(AuthUserListRequest {}).await.unwrap().into_inner().users.is_empty());
    assert!(auth.role_list(AuthRoleListRequest {}).await.unwrap().into_inner().roles.is_empty());
    auth.auth_disable(AuthDisableRequest {}).await.unwrap();
}

#[tokio::test]
async fn stores_that_hold_the_same_at_a_revision_hash_the_same_whatever_they_have_compacted() {
    let mut hashes = Vec::new();
    for (compacts, differs) in [(false, false), (true, false), (false, true)] {
        let db: Arc<LocalDb> = LocalDb::new(Limits::default());
        let channel = common::serve(db.clone(), Alone::default()).await;
        let (mut kv, mut m) = (KvClient::new(channel.clone()), MaintenanceClient::new(channel));
        // More keys than are hashed in one step.
        for n in 0..2500 {
            put(&mut kv, &format!("k{n}"), "v").await;
        }
        let at = db.mvcc().facade_revision() as i64;
        put(&mut kv, "k7", if differs { "other" } else { "new" }).await;
        let head = db.mvcc().facade_revision() as i64;
        if compacts {
            let op = Op::CompactFacade(at as u64);
            db.commit(Txn { ops: vec![op], ..Txn::default() }).await.unwrap();
            let e = hash(&mut m, at - 1).await.unwrap_err();
            assert_eq!(
                (e.code(), e.message()),
                (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted")
            );
        }
        let e = hash(&mut m, head + 1).await.unwrap_err();
        assert_eq!(
            (e.code(), e.message()),
            (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision")
        );
        let (past, now) = (hash(&mut m, at).await.unwrap(), hash(&mut m, 0).await.unwrap());
        assert_eq!((past.2, now.2), (at, head));
        assert_eq!(now.1, if compacts { at } else { 1 });
        assert_eq!(m.hash(HashRequest {}).await.unwrap().into_inner().hash, now.0);
        hashes.push((past.0, now.0));
    }
    assert_eq!(hashes[0], hashes[1]);
    assert!(hashes[0].0 == hashes[2].0 && hashes[0].1 != hashes[2].1);
    assert_ne!(hashes[0].0, hashes[0].1);
}

#[tokio::test]
async fn members_are_listed_as_they_are() {
    let member = |id: u64, client_url: Option<&str>| ClusterMember {
        id,
        name: format!("r{id}"),
        peer_url: format!("https://10.0.0.{id}:2380"),
        client_url: client_url.map(str::to_owned),
        learner: id == 2,
    };
    let members = vec![member(1, Some("https://10.0.0.1:2379")), member(2, None)];
    let channel = common::serve(LocalDb::new(Limits::default()), Alone { members, ..Alone::default() }).await;
    let listed = ClusterClient::new(channel).member_list(MemberListRequest { linearizable: true }).await;
    let listed = listed.unwrap().into_inner().members;
    assert_eq!((listed[0].id, listed[0].name.as_str(), listed[0].is_learner), (1, "r1", false));
    assert_eq!(listed[0].peer_ur_ls, ["https://10.0.0.1:2380"]);
    assert_eq!(listed[0].client_ur_ls, ["https://10.0.0.1:2379"]);
    assert!(listed[1].is_learner && listed[1].client_ur_ls.is_empty());
}

#[tokio::test]
async fn leadership_moves_from_the_leader_to_a_voter_only() {
    let channel = common::serve(LocalDb::new(Limits::default()), Alone::default()).await;
    let mut m = MaintenanceClient::new(channel);
    for (target_id, said) in
        [(1, Some("etcdserver: not leader")), (2, Some("etcdserver: bad leader transferee")), (3, None)]
    {
        let moved = m.move_leader(MoveLeaderRequest { target_id }).await;
        assert_eq!(
            moved.err().map(|e| (e.code(), e.message().to_owned())),
            said.map(|s| (Code::FailedPrecondition, s.into()))
        );
    }
}

/// Calls a method whose messages the facade has no definition of.
async fn call(channel: &Channel, path: &'static str) -> Status {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<AuthStatusRequest, AuthStatusResponse>::default();
    let path = http::uri::PathAndQuery::from_static(path);
    grpc.unary(tonic::Request::new(AuthStatusRequest {}), path, codec).await.unwrap_err()
}

#[tokio::test]
async fn what_is_not_supported_is_refused_with_etcds_own_codes() {
    let channel = common::serve(LocalDb::new(Limits::default()), Alone::default()).await;
    for (path, code, message) in [
        ("/etcdserverpb.Cluster/MemberAdd", Code::Unavailable, "etcdserver: not capable"),
        ("/etcdserverpb.Cluster/MemberPromote", Code::Unavailable, "etcdserver: not capable"),
        ("/etcdserverpb.Maintenance/Snapshot", Code::Unavailable, "etcdserver: not capable"),
        ("/etcdserverpb.Auth/Authenticate", Code::FailedPrecondition, "etcdserver: authentication is not enabled"),
        ("/etcdserverpb.Auth/AuthEnable", Code::FailedPrecondition, "etcdserver: root user does not exist"),
        ("/etcdserverpb.Auth/UserGet", Code::FailedPrecondition, "etcdserver: user name not found"),
        ("/etcdserverpb.Auth/RoleDelete", Code::FailedPrecondition, "etcdserver: role name not found"),
    ] {
        let status = call(&channel, path).await;
        assert_eq!((status.code(), status.message()), (code, message), "{path}");
    }
    assert_eq!(call(&channel, "/v3lockpb.Lock/Lock").await.code(), Code::Unimplemented);
}
