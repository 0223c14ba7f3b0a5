//! Faults, on the wire.

use std::collections::BTreeMap;

use crate::testing::{Client, start};

const KEY: &str = "/lhsm-sandbox/key";

async fn with_object(body: &[u8]) -> Client {
    let client = start(|_| {}).await;
    client.server.put("lhsm-sandbox", "key", body.to_vec(), BTreeMap::new());
    client
}

#[tokio::test]
async fn hangs_and_goes_on() {
    let client = with_object(b"body").await;
    client.server.faults().hang(true);
    let gate = client.server.faults().hanging().unwrap();
    let requests: Vec<_> = (0..2)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get(KEY).await })
        })
        .collect();
    gate.wait_held(2).await;
    assert!(requests.iter().all(|request| !request.is_finished()));
    assert_eq!(client.server.stats().count("GetObject"), 0);
    client.server.faults().hang(false);
    for request in requests {
        assert_eq!(request.await.unwrap().assert_ok().body, b"body");
    }
    assert_eq!(client.server.stats().count("GetObject"), 2);
}

#[tokio::test]
async fn holds_one_operation_and_serves_the_others() {
    let client = with_object(b"old").await;
    let gate = client.server.faults().hold("PutObject");
    let put = {
        let client = client.clone();
        tokio::spawn(async move { client.put(KEY, b"new").await })
    };
    gate.wait_held(1).await;
    assert_eq!(client.get(KEY).await.body, b"old");
    gate.release();
    put.await.unwrap().assert_ok();
    assert_eq!(client.get(KEY).await.body, b"new");
}

#[tokio::test]
async fn a_failure_is_answered_even_to_a_large_body() {
    let client = with_object(b"old").await;
    client.server.faults().fail("PutObject", 503, "SlowDown", 1);
    let large = vec![0; 20_000_000];
    assert_eq!(client.put(KEY, &large).await.outcome(), (503, "SlowDown".to_owned()));
    assert_eq!(client.get(KEY).await.body, b"old");
    client.put(KEY, b"new").await.assert_ok();
    assert_eq!(client.server.stats().count("PutObject"), 2);
}

#[tokio::test]
async fn a_body_is_cut() {
    let body = vec![7; 3_000_000];
    let client = with_object(&body).await;
    client.server.faults().truncate_body("GetObject", 1_000_000, 1);
    let reply = client.get(KEY).await;
    assert_eq!((reply.status, reply.header("content-length")), (200, "3000000"));
    assert_eq!(reply.body.len(), 1_000_000);
    assert_eq!(client.get(KEY).await.body, body);
}

#[tokio::test]
async fn a_body_is_corrupted() {
    let client = with_object(b"0123456789").await;
    client.server.faults().corrupt_body(1);
    let reply = client.get(KEY).await.assert_ok();
    let differences = reply
        .body
        .iter()
        .zip(b"0123456789")
        .map(|(got, put)| (got ^ put).count_ones());
    assert_eq!((reply.body.len(), differences.sum::<u32>()), (10, 1));
    assert_eq!(client.get(KEY).await.body, b"0123456789");
}

#[tokio::test]
async fn a_stopped_server_answers_nobody() {
    let client = with_object(b"body").await;
    client.server.faults().hang(true);
    let gate = client.server.faults().hanging().unwrap();
    let held = {
        let client = client.clone();
        tokio::spawn(async move { client.get(KEY).await })
    };
    gate.wait_held(1).await;
    let address = client.server.address();
    client.server.stop().await;
    assert!(held.await.is_err(), "the connection was closed without an answer");
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn an_answer_names_an_etag_and_a_checksum_that_nothing_has() {
    let client = with_object(b"old").await;
    let faults = client.server.faults();
    faults.wrong_etag("PutObject", 1);
    faults.wrong_checksum("PutObject", 1);
    faults.wrong_etag("GetObject", 1);
    let put = client.put(KEY, b"new").await.assert_ok();
    let sum = "x-amz-checksum-crc64nvme";
    let stored = client.server.objects("lhsm-sandbox")[0].etag.clone();
    assert_ne!(put.header("etag").trim_matches('"'), stored);
    assert_eq!(put.header(sum), "AAAAAAAAAAA=");
    let got = client.get(KEY).await.assert_ok();
    assert_ne!(got.header("etag").trim_matches('"'), stored);
    assert_eq!(got.body, b"new");
    let again = client.put(KEY, b"new").await.assert_ok();
    assert_eq!(again.header("etag").trim_matches('"'), stored);
    assert_ne!(again.header(sum), put.header(sum));
}

#[tokio::test]
async fn a_reset_request_is_not_served_and_a_lost_answer_is_of_one_that_is() {
    let client = with_object(b"old").await;
    let put = |body: &'static [u8]| {
        let client = client.clone();
        tokio::spawn(async move { client.put(KEY, body).await })
    };
    client.server.faults().reset("PutObject", 1);
    assert!(
        put(b"one").await.is_err(),
        "the connection was closed without an answer"
    );
    assert_eq!(client.get(KEY).await.body, b"old");
    client.server.faults().lose_answer("PutObject", 1);
    assert!(
        put(b"two").await.is_err(),
        "the connection was closed without an answer"
    );
    assert_eq!(client.get(KEY).await.body, b"two");
    put(b"three").await.unwrap().assert_ok();
    assert_eq!(client.server.stats().count("PutObject"), 3);
}
