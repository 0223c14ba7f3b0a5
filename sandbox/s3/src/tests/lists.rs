//! Listing objects, and deleting what was listed.

use std::collections::BTreeMap;

use crate::testing::{Body, Client, start};

async fn with_keys(keys: &[&str]) -> Client {
    let client = start(|_| {}).await;
    for key in keys {
        client
            .server
            .put("lhsm-sandbox", key, key.as_bytes().to_vec(), BTreeMap::new());
    }
    client
}

/// All pages of a listing: their keys and common prefixes.
async fn pages(client: &Client, query: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut token = String::new();
    loop {
        let continued = if token.is_empty() {
            String::new()
        } else {
            format!("continuation-token={token}&")
        };
        let reply = client
            .get(&format!("/lhsm-sandbox?{continued}{query}"))
            .await
            .assert_ok();
        let mut page = reply.all("Key");
        let prefixes = reply.all("CommonPrefixes");
        page.extend(
            prefixes
                .iter()
                .map(|it| it.replace("<Prefix>", "").replace("</Prefix>", "")),
        );
        assert_eq!(reply.element("KeyCount"), page.len().to_string());
        pages.push(page);
        token = reply.element("NextContinuationToken");
        assert_eq!(reply.element("IsTruncated"), (!token.is_empty()).to_string());
        if token.is_empty() {
            return pages;
        }
    }
}

#[tokio::test]
async fn pages_with_a_delimiter() {
    let client = with_keys(&["a/1", "a/2", "a/3", "b", "c/1", "c/x/2", "d"]).await;
    assert_eq!(
        pages(&client, "delimiter=%2F&list-type=2").await,
        [["b", "d", "a/", "c/"]]
    );
    let expected = [vec!["b", "a/"], vec!["d", "c/"]];
    assert_eq!(pages(&client, "delimiter=%2F&list-type=2&max-keys=2").await, expected);
    let expected = [vec!["a/"], vec!["b"], vec!["c/"], vec!["d"]];
    assert_eq!(pages(&client, "delimiter=%2F&list-type=2&max-keys=1").await, expected);
    assert_eq!(
        pages(&client, "delimiter=%2F&list-type=2&prefix=c%2F").await,
        [["c/1", "c/x/"]]
    );
}

#[tokio::test]
async fn pages_without_a_delimiter() {
    let client = with_keys(&["a/1", "a/2", "a/3", "b", "c"]).await;
    let expected = [vec!["a/1", "a/2"], vec!["a/3", "b"], vec!["c"]];
    assert_eq!(pages(&client, "list-type=2&max-keys=2").await, expected);
    assert_eq!(
        pages(&client, "list-type=2&max-keys=2&prefix=a").await,
        [vec!["a/1", "a/2"], vec!["a/3"]]
    );
    assert_eq!(
        pages(&client, "list-type=2&start-after=a%2F2").await,
        [["a/3", "b", "c"]]
    );
    assert_eq!(pages(&client, "list-type=2&prefix=b&start-after=a").await, [["b"]]);
    assert_eq!(pages(&client, "list-type=2&prefix=zz").await, [[""; 0]]);
    let reply = client.get("/lhsm-sandbox?continuation-token=%2A&list-type=2").await;
    assert_eq!(reply.outcome(), (400, "InvalidArgument".to_owned()));
}

#[tokio::test]
async fn a_page_is_repeated_for_ever() {
    let client = with_keys(&["a", "b", "c"]).await;
    client.server.faults().repeat("ListObjectsV2");
    let first = client.get("/lhsm-sandbox?list-type=2").await.assert_ok();
    let token = first.element("NextContinuationToken");
    let again = client
        .get(&format!("/lhsm-sandbox?continuation-token={token}&list-type=2"))
        .await
        .assert_ok();
    for page in [first, again] {
        assert_eq!(page.all("Key"), ["a", "b", "c"]);
        assert_eq!(page.element("IsTruncated"), "true");
    }
}

#[tokio::test]
async fn many_are_deleted_at_once() {
    let client = with_keys(&["a", "b", "c"]).await;
    let body = b"<Delete><Object><Key>a</Key></Object><Object><Key>c</Key></Object>\
        <Object><Key>none</Key></Object><Object><Key>b</Key><ETag>\"00\"</ETag></Object></Delete>";
    let md5 = "content-md5";
    let mut sums = crate::sums::Hasher::new(None);
    sums.update(body);
    let digest = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, sums.finish().md5);
    let reply = client
        .send("POST", "/lhsm-sandbox?delete=", &[(md5, &digest)], Body::Plain(body))
        .await
        .assert_ok();
    assert_eq!(reply.all("Deleted").len(), 3);
    assert_eq!(reply.all("Code"), ["PreconditionFailed"]);
    assert_eq!(client.server.objects("lhsm-sandbox").len(), 1);
}

#[tokio::test]
async fn buckets() {
    let client = start(|_| {}).await;
    client.put("/second-bucket", b"").await.assert_ok();
    assert_eq!(
        client.put("/second-bucket", b"").await.outcome(),
        (409, "BucketAlreadyOwnedByYou".to_owned())
    );
    assert_eq!(
        client.get("/").await.assert_ok().all("Name"),
        ["lhsm-sandbox", "second-bucket"]
    );
    client
        .send("HEAD", "/second-bucket", &[], Body::Plain(b""))
        .await
        .assert_ok();
    assert_eq!(
        client.send("HEAD", "/third-bucket", &[], Body::Plain(b"")).await.status,
        404
    );
}
