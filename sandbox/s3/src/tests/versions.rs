//! Versions and delete markers.

use crate::testing::start;

const KEY: &str = "/lhsm-sandbox/key";

#[tokio::test]
async fn versions_are_kept_and_deleted_one_by_one() {
    let client = start(|config| config.versioning = true).await;
    assert_eq!(
        client
            .get("/lhsm-sandbox?versioning=")
            .await
            .assert_ok()
            .element("Status"),
        "Enabled"
    );
    let mut versions = Vec::new();
    for body in [b"one", b"two"] {
        versions.push(
            client
                .put(KEY, body)
                .await
                .assert_ok()
                .header("x-amz-version-id")
                .to_owned(),
        );
    }
    let of = |version: &str| format!("{KEY}?versionId={version}");
    assert_eq!(client.get(&of(&versions[0])).await.assert_ok().body, b"one");
    assert_eq!(client.get(KEY).await.assert_ok().body, b"two");

    let deleted = client.delete(KEY).await.assert_ok();
    assert_eq!(deleted.header("x-amz-delete-marker"), "true");
    let marker = deleted.header("x-amz-version-id").to_owned();
    assert_eq!(client.get(KEY).await.outcome(), (404, "NoSuchKey".to_owned()));
    assert_eq!(
        client.get(&of(&marker)).await.outcome(),
        (405, "MethodNotAllowed".to_owned())
    );
    assert_eq!(client.get(&of(&versions[1])).await.assert_ok().body, b"two");
    assert!(client.server.objects("lhsm-sandbox").is_empty());

    // Markers first, then the newest; of other keys nothing.
    client.put("/lhsm-sandbox/kex", b"other").await.assert_ok();
    let listed = client.get("/lhsm-sandbox?prefix=key&versions=").await.assert_ok();
    let expected = [&marker, &versions[1], &versions[0]].map(String::clone);
    assert_eq!(listed.all("VersionId"), expected);
    client.delete("/lhsm-sandbox/kex").await.assert_ok();

    client.delete(&of(&marker)).await.assert_ok();
    assert_eq!(client.get(KEY).await.assert_ok().body, b"two");
    client.delete(&of(&versions[1])).await.assert_ok();
    assert_eq!(client.get(KEY).await.assert_ok().body, b"one");
    assert_eq!(
        client.get(&of(&versions[1])).await.outcome(),
        (404, "NoSuchVersion".to_owned())
    );
    client.delete(&of(&versions[0])).await.assert_ok();
    assert_eq!(client.get(KEY).await.outcome(), (404, "NoSuchKey".to_owned()));
}
