//! Writes, reads and deletes under a condition.

use crate::testing::{Body, start};

const KEY: &str = "/lhsm-sandbox/dir/object";

fn outcome(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn writes_only_when_there_is_none() {
    let client = start(|_| {}).await;
    let put = async |body: &[u8]| {
        client
            .send("PUT", KEY, &[("if-none-match", "*")], Body::Plain(body))
            .await
    };
    put(b"first").await.assert_ok();
    assert_eq!(put(b"second").await.outcome(), outcome(412, "PreconditionFailed"));
    assert_eq!(client.get(KEY).await.body, b"first");
    client.delete(KEY).await.assert_ok();
    put(b"third").await.assert_ok();
}

#[tokio::test]
async fn writes_and_deletes_only_what_matches() {
    let client = start(|_| {}).await;
    let send = async |method: &str, etag: &str| {
        client
            .send(method, KEY, &[("if-match", etag)], Body::Plain(b"new"))
            .await
    };
    assert_eq!(send("PUT", "\"00\"").await.outcome(), outcome(404, "NoSuchKey"));
    let etag = client.put(KEY, b"old").await.assert_ok().header("etag").to_owned();
    for method in ["PUT", "GET", "DELETE"] {
        assert_eq!(
            send(method, "\"00\"").await.outcome(),
            outcome(412, "PreconditionFailed")
        );
    }
    assert_eq!(send("GET", &etag).await.assert_ok().body, b"old");
    let etag = send("PUT", &etag).await.assert_ok().header("etag").to_owned();
    send("DELETE", &etag).await.assert_ok();
    assert!(client.server.objects("lhsm-sandbox").is_empty());
}

#[tokio::test]
async fn without_conditional_writes_they_are_refused() {
    let client = start(|config| config.conditional_writes = false).await;
    for header in [("if-none-match", "*"), ("if-match", "\"00\"")] {
        let reply = client.send("PUT", KEY, &[header], Body::Plain(b"body")).await;
        assert_eq!(reply.outcome(), outcome(501, "NotImplemented"));
    }
    client.put(KEY, b"body").await.assert_ok();
}
