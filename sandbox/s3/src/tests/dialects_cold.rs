//! Objects that are frozen, and how they thaw.

use std::collections::BTreeMap;

use crate::Dialect;
use crate::testing::{Body, Client, Reply, start};

const KEY: &str = "/lhsm-sandbox/key";

async fn of_class(class: &str) -> Client {
    let client = start(|_| {}).await;
    let headers = [("x-amz-storage-class", class)];
    client
        .send("PUT", KEY, &headers, Body::Plain(b"body"))
        .await
        .assert_ok();
    client
}

fn outcome(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

async fn head(client: &Client) -> Reply {
    client.send("HEAD", KEY, &[], Body::Plain(b"")).await.assert_ok()
}

async fn restore(client: &Client, days: &str) -> Reply {
    let body = format!("<RestoreRequest>{days}</RestoreRequest>");
    let target = format!("{KEY}?restore=");
    client.send("POST", &target, &[], Body::Plain(body.as_bytes())).await
}

const DAYS: &str = "<Days>3</Days>";

#[tokio::test]
async fn an_object_of_an_archive_class_is_read_after_its_thaw() {
    for class in ["GLACIER", "DEEP_ARCHIVE"] {
        let client = of_class(class).await;
        assert_eq!(client.get(KEY).await.body, b"body", "S3's classes are a dialect here");
        client.server.dialects().set(&[Dialect::Cold]);
        assert_eq!(client.get(KEY).await.outcome(), outcome(403, "InvalidObjectState"));
        let source = [("x-amz-copy-source", "/lhsm-sandbox/key")];
        let copy = client
            .send("PUT", "/lhsm-sandbox/copy", &source, Body::Plain(b""))
            .await;
        assert_eq!(copy.outcome(), outcome(403, "InvalidObjectState"));
        assert_eq!(head(&client).await.header("x-amz-storage-class"), class);
        assert_eq!(head(&client).await.header("x-amz-restore"), "");
        assert_eq!(restore(&client, "").await.outcome(), outcome(400, "MalformedXML"));
        assert_eq!(restore(&client, DAYS).await.status, 202);
        assert_eq!(head(&client).await.header("x-amz-restore"), "ongoing-request=\"true\"");
        assert_eq!(
            restore(&client, DAYS).await.outcome(),
            outcome(409, "RestoreAlreadyInProgress")
        );
        assert_eq!(client.get(KEY).await.status, 403);
        assert!(client.server.thaw("lhsm-sandbox", "key"));
        assert_eq!(client.get(KEY).await.assert_ok().body, b"body");
        let told = head(&client).await.header("x-amz-restore").to_owned();
        assert!(told.starts_with("ongoing-request=\"false\", expiry-date="), "{told}");
        assert_eq!(restore(&client, DAYS).await.status, 200);
        client
            .send("PUT", KEY, &[("x-amz-storage-class", class)], Body::Plain(b"new"))
            .await
            .assert_ok();
        assert_eq!(
            client.get(KEY).await.status,
            403,
            "what is written anew is frozen again"
        );
    }
}

#[tokio::test]
async fn other_classes_are_read_at_once() {
    let client = of_class("GLACIER_IR").await;
    client.server.dialects().set(&[Dialect::Cold]);
    client.get(KEY).await.assert_ok();
    assert_eq!(
        restore(&client, DAYS).await.outcome(),
        outcome(403, "InvalidObjectState")
    );
    assert!(client.server.set_class("lhsm-sandbox", "key", "GLACIER"));
    assert_eq!(client.get(KEY).await.status, 403);
    assert!(!client.server.set_class("lhsm-sandbox", "none", "GLACIER"));
}

#[tokio::test]
async fn an_archive_tier_is_left_without_days() {
    let client = start(|_| {}).await;
    client.server.put("lhsm-sandbox", "key", &b"body"[..], BTreeMap::new());
    client.server.dialects().set(&[Dialect::TieringNoDays]);
    assert!(
        client
            .server
            .set_archive_status("lhsm-sandbox", "key", "ARCHIVE_ACCESS")
    );
    assert_eq!(client.get(KEY).await.outcome(), outcome(403, "InvalidObjectState"));
    assert_eq!(head(&client).await.header("x-amz-archive-status"), "ARCHIVE_ACCESS");
    assert_eq!(head(&client).await.header("x-amz-storage-class"), "INTELLIGENT_TIERING");
    assert_eq!(restore(&client, DAYS).await.outcome(), outcome(400, "InvalidArgument"));
    assert_eq!(restore(&client, "").await.status, 202);
    assert_eq!(head(&client).await.header("x-amz-restore"), "ongoing-request=\"true\"");
    assert!(client.server.thaw("lhsm-sandbox", "key"));
    client.get(KEY).await.assert_ok();
    assert_eq!(head(&client).await.header("x-amz-archive-status"), "");
}

#[tokio::test]
async fn without_the_model_a_thaw_is_accepted_and_nothing_else() {
    let client = of_class("GLACIER").await;
    assert_eq!(restore(&client, DAYS).await.status, 200);
    assert_eq!(head(&client).await.header("x-amz-restore"), "");
    assert_eq!(client.get(KEY).await.assert_ok().body, b"body");
}
